"""Every module in experiments/, at both scales, without running it."""

import ast
import dataclasses
import json
import subprocess
import sys

import jax
import pytest

from kd import catalog, config
from kd.data.sentences import TextTask
from kd.divergences import SinKD
from kd.experiment import Experiment
from kd.models.bert import Bert

every_experiment = pytest.mark.parametrize("name", catalog.names())
both_scales = pytest.mark.parametrize("scale", ["paper", "mini"])
every_scale = pytest.mark.parametrize("scale", ["paper", "small", "mini"])


@every_experiment
@every_scale
def test_loads_and_is_json(name, scale):
    experiment = catalog.load(name, scale)
    assert isinstance(experiment, Experiment)
    tree = json.loads(json.dumps(config.to_json(experiment)))
    if experiment.student is None:
        start = experiment.start
        assert start is not None and (start.place or start.recipe)
    else:
        known = ("Bert", "GPT2", "Llama", "MLP", "ResNet", "T5", "ViT")
        assert tree["student"]["class"] in known
    assert config.differences(tree, config.to_json(experiment)) == []


@every_experiment
def test_lab_note_names_its_command(name):
    path = catalog.DIRECTORY / f"{name}.py"
    note = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert f"make exp NAME={name}" in note
    assert catalog.headline(name).endswith(".") and len(catalog.headline(name)) <= 80


@pytest.mark.slow
def test_importing_computes_nothing_and_imports_no_heavy_package():
    program = """
import sys
import jax
jax.config.update("jax_platforms", "none")  # any computation now fails
import kd.divergences
from kd import catalog
for name in catalog.names():
    catalog.load(name, "paper"), catalog.load(name, "mini")
kd.divergences.OptimalTransport()
heavy = {"ott", "requests", "tensorflow", "tensorflow_datasets", "torch",
    "transformers"}
imported = heavy & set(sys.modules)
sys.exit(f"imported: {imported}" if imported else 0)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_published_recipe():
    sinkd = catalog.load("sst2_sinkd", "paper")
    assert (sinkd.batch_size, sinkd.num_epochs) == (32, 2)
    assert sinkd.optimizer.learning_rate == 4e-5
    weights = {term.loss.name: term.weight for term in sinkd.objective.terms}
    assert weights == {"ce": 0.1, "kl": 0.9, "sinkd": 0.8}
    (sinkhorn,) = [t.loss for t in sinkd.objective.terms if isinstance(t.loss, SinKD)]
    assert sinkhorn == SinKD(2.0, 0.1, 20, "faithful")
    assert sinkd.teacher and sinkd.teacher.recipe
    student, teacher = sinkd.student, sinkd.teacher.recipe.student
    assert isinstance(student, Bert) and isinstance(teacher, Bert)
    assert (student.num_layers, student.width) == (6, 768)
    assert teacher.num_layers == 12
    assert isinstance(sinkd.data, TextTask) and sinkd.data.widths[-1] == 128


@both_scales
def test_sinkd_differs_from_kd_by_one_term(scale):
    kd, sinkd = (catalog.load(name, scale) for name in ("sst2_kd", "sst2_sinkd"))
    assert dataclasses.replace(sinkd, objective=kd.objective) == kd
    assert sinkd.objective.terms[:-1] == kd.objective.terms


@both_scales
@pytest.mark.parametrize("name", ["fashion_mnist_kd", "gtzan_kd", "cola_dkd"])
def test_the_teacher_is_larger_and_sees_the_same(name, scale):
    experiment = catalog.load(name, scale)
    assert experiment.teacher and experiment.teacher.recipe
    assert experiment.teacher.recipe.data == experiment.data
    shape = {"fashion_mnist_kd": (1, 28, 28, 1), "gtzan_kd": (1, 57)}.get(name)
    batch = {"inputs": jax.ShapeDtypeStruct(shape, "float32")} if shape else {}
    networks = (experiment.student, experiment.teacher.recipe.student)
    student, teacher = (
        sum(
            leaf.size
            for leaf in jax.tree.leaves(
                jax.eval_shape(network.build(10).init, jax.random.key(0), batch)
            )
        )
        for network in networks
        if network is not None
    )
    assert student < teacher


@every_scale
def test_annealing_goes_on_from_the_best_of_phase_one(scale):
    phase_two = catalog.load("sst2_annealing", scale)
    assert phase_two.start and phase_two.start.checkpoint == "best"
    phase_one = phase_two.start.recipe
    assert phase_one and phase_one.teachers == phase_two.teachers
    assert [t.loss.name for t in phase_one.objective.terms] == ["logit_mse"]
    assert [t.loss.name for t in phase_two.objective.terms] == ["ce"]
    from_last = config.override(phase_two, "start.checkpoint=last")
    assert from_last.start == dataclasses.replace(phase_two.start, checkpoint="last")


@every_scale
@pytest.mark.parametrize("name", ["kdpp", "dkdpp", "distpp"])
def test_norm_and_direction_is_not_warmed_up(name, scale):
    experiment = catalog.load(f"fashion_mnist_{name}", scale)
    labels, divergence, directions = experiment.objective.terms
    assert callable(divergence.weight) and not callable(labels.weight)
    assert divergence.weight(0) == 0
    num_steps = experiment.num_steps or experiment.num_epochs * 469
    at = {share: divergence.weight(int(share * num_steps)) for share in (0.04, 0.1, 1)}
    assert 0 < at[0.04] < at[0.1] == at[1]
    assert isinstance(directions.weight, float) and directions.weight > 0
    assert not experiment.objective.live_readers
