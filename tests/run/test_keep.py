"""The best network of a run, beside its last: kept, resumed, asked for."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
from conftest import killed_at_batch
from test_room import experiment_on, write_table

from kd import run
from kd.divergences import KL, annealing, continuation
from kd.errors import UserError
from kd.evaluate.classes import Classes
from kd.experiment import Network
from kd.models.mlp import MLP
from kd.objective import CrossEntropy
from kd.run import keep
from kd.train import metrics_log

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"


@pytest.fixture
def recipe(tmp_path):
    """Gets worse again: the rate of learning is far too high."""
    write_table(tmp_path / "data", lambda x, y: "high" if y > x * x else "low")
    experiment = experiment_on(
        tmp_path / "data", Classes(("low", "high")), 1.0 * CrossEntropy()
    )
    fast = dataclasses.replace(experiment.optimizer, learning_rate=3.0)
    return dataclasses.replace(experiment, optimizer=fast, evaluate_every=2)


def evaluations(directory):
    rows = metrics_log.read(directory / "metrics.jsonl")
    return {r["step"]: r["accuracy"] for r in rows if r["split"] == "dev"}


def test_the_best_is_kept_beside_the_last(recipe, place):
    workspace, _ = place
    last = run.run(recipe, "last", workspace)
    directory = workspace.runs / "last" / "0"
    assert not (directory / keep.BEST).exists()
    accuracies = evaluations(directory)
    best = max(accuracies, key=lambda step: accuracies[step])
    assert accuracies[best] > accuracies[20] and best < 20, "or it shows nothing"

    kept = dataclasses.replace(recipe, keep_best=True)
    summary = run.run(kept, "kept", workspace)
    # The results are those of the last step all the same.
    assert summary["student"] == last["student"]
    assert summary["student"]["best"]["step"] == best
    weights = {
        (name, folder): (workspace.runs / name / "0" / folder / WEIGHTS).read_bytes()
        for name, folder in (("last", "model"), ("kept", "model"), ("kept", "best"))
    }
    assert weights["last", "model"] == weights["kept", "model"]
    assert weights["kept", "model"] != weights["kept", "best"]

    # As a teacher it scores what the evaluation said.
    for checkpoint, step in (("best", best), ("last", 20)):
        teacher = Network(recipe=recipe, checkpoint=checkpoint)
        found = run.run(
            dataclasses.replace(
                recipe, teachers=(teacher,), objective=1.0 * KL(), num_steps=2
            ),
            f"taught by {checkpoint}",
            workspace,
        )
        np.testing.assert_allclose(found["teacher"]["accuracy"], accuracies[step])


@pytest.mark.parametrize("batch", [4, 10, 15, 20])
def test_a_run_that_was_stopped_keeps_the_same(recipe, place, batch):
    workspace, _ = place
    kept = dataclasses.replace(recipe, keep_best=True)
    run.run(kept, "whole", workspace)
    with killed_at_batch(batch):
        run.run(kept, "again", workspace)
    run.run(kept, "again", workspace)
    whole, again = (workspace.runs / name / "0" for name in ("whole", "again"))
    assert evaluations(whole) == evaluations(again)
    for folder in (keep.LAST, keep.BEST):
        files = {path.name for path in (whole / folder).iterdir()} - {"README.md"}
        assert {"config.json", "normalization.json", WEIGHTS} <= files
        for name in files:
            ours, theirs = (d / folder / name for d in (whole, again))
            assert ours.read_bytes() == theirs.read_bytes()


def test_phase_two_starts_where_it_is_told_to(recipe, place):
    """Annealing-KD: regression on the teacher, then the labels."""
    workspace, _ = place
    teacher = Network(recipe=dataclasses.replace(recipe, evaluate_every=0))
    phase_one = dataclasses.replace(
        recipe, teachers=(teacher,), objective=annealing(20, num_levels=4)
    )
    # Two steps that change nothing.
    still = dataclasses.replace(recipe.optimizer, learning_rate=1e-30)
    for checkpoint, folder in (("last", keep.LAST), ("best", keep.BEST)):
        phase_two = dataclasses.replace(
            recipe,
            teachers=(teacher,),
            start=Network(recipe=phase_one, checkpoint=checkpoint),
            objective=1.0 * CrossEntropy(),
            optimizer=still,
            num_steps=2,
        )
        run.run(phase_two, checkpoint, workspace)
        assert phase_two.start is not None and phase_two.start.recipe is not None
        begun = run.folder_of(phase_two.start.recipe, workspace) / folder
        ours = safetensors.numpy.load_file(
            workspace.runs / checkpoint / "0" / "model" / WEIGHTS
        )
        theirs = safetensors.numpy.load_file(begun / WEIGHTS)
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            np.testing.assert_array_equal(tensor, theirs[name])
    rows = metrics_log.read(begun.parent / "metrics.jsonl")
    amplitudes = [r["logit_mse/amplitude"] for r in rows if r["split"] == "train"]
    assert amplitudes == [*np.repeat([0.25, 0.5, 0.75, 1.0], 5)]
    # A place can be that of the best, too.
    other = dataclasses.replace(recipe, start=Network(place=str(begun)), student=None)
    run.run(other, "placed", workspace)


def test_what_is_asked_for_is_what_is_found(recipe, place):
    """Only how often a run is evaluated decides which of its networks is the best."""
    workspace, _ = place

    def folder(recipe, **asked):
        network = Network(recipe=recipe, **asked)
        assert network.recipe is not None
        return run.folder_of(network.recipe, workspace)

    rare = dataclasses.replace(recipe, evaluate_every=7)
    assert folder(recipe) == folder(rare)
    best = folder(recipe, checkpoint="best")
    assert len({best, folder(rare, checkpoint="best"), folder(rare)}) == 3

    def student_of(recipe, **asked):
        made = dataclasses.replace(recipe, start=Network(recipe=recipe, **asked))
        return run.folder_of(made, workspace)

    assert student_of(recipe) == student_of(rare)
    assert student_of(recipe, checkpoint="best") != student_of(recipe)


def test_the_best_of_a_place_is_another_place(recipe):
    with pytest.raises(ValueError, match="in the folder best, which can be the place"):
        Network(place="somewhere", checkpoint="best")
    with pytest.raises(ValueError, match='checkpoint="best" is of a recipe'):
        Network(recipe=recipe, place="somewhere", checkpoint="best")


def test_a_start_of_another_architecture_is_found_before_it_is_trained(recipe, place):
    workspace, _ = place
    phase_one = dataclasses.replace(recipe, student=MLP(widths=(9,)))
    phase_two = dataclasses.replace(recipe, start=Network(recipe=phase_one))
    with pytest.raises(UserError) as refused:
        run.run(phase_two, "wrong", workspace)
    assert str(refused.value) == (
        "start: the network of its recipe is not the student; it has widths (9,), not "
        "(8,)"
    )
    assert not workspace.runs.exists()


def test_a_schedule_out_of_range_is_found_before_the_first_step(recipe, place):
    workspace, _ = place
    teacher = Network(recipe=recipe)
    wrong = dataclasses.replace(
        recipe,
        teachers=(teacher,),
        objective=continuation(10, margin=lambda s: 5.0 - s),
    )
    with pytest.raises(UserError, match="objective: continuation: margin must be at l"):
        run.run(wrong, "wrong", workspace)
    assert not (workspace.runs / "wrong/0/checkpoints").exists()
    log = workspace.runs / "wrong/0/metrics.jsonl"
    assert not log.exists() or not json.loads(log.read_text() or "[]")
