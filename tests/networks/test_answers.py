"""What is computed once of a teacher: its logits, embeddings and class means."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_experiment
from test_room import experiment_on, whole_and_resumed, write_table

from kd import run
from kd.divergences import KL
from kd.evaluate.classes import Classes
from kd.experiment import Network
from kd.features import (
    AttentionMSE,
    Hints,
    NormAndDirection,
    OverLayers,
    RKDDistance,
    layers,
)
from kd.models.mlp import MLP
from kd.networks import answers, load
from kd.networks.load import Found
from kd.objective import CrossEntropy
from kd.procedures.online import Online, Peer
from kd.train import metrics_log
from kd.types import Embedding, Outputs
from kd.views.view import View

pytestmark = pytest.mark.slow


def asked(experiment, place, on_train, **settings):
    """Trains the experiment and asks it about its own data."""
    workspace, said = place
    directory = run.make(experiment, workspace)
    task = experiment.data
    corpus = run.read(task, workspace)
    data = task.prepare(corpus, directory / "model")
    teacher = load.load(Found(str(directory / "model"), ""), task, data, "float32")
    found = answers.consult(
        [teacher], task.target.ensemble, data, target=task.target,
        mesh=workspace.mesh, say=said.append,
        about=np.arange(len(data.train)) if on_train else None, in_step=not on_train,
        cache=workspace.runs / "answers", **settings,
    )  # fmt: skip
    return teacher, data, found


def one_by_one(teacher, data, layer, read):
    """The same, example by example."""
    for i in range(len(data.train)):
        inputs = jax.tree.map(jnp.asarray, data.train.inputs(np.array([i])))
        outputs = teacher.model.apply(teacher.params, inputs, None)
        batch = inputs | {"mask": jnp.ones(1, bool)}
        yield layers.vectors(outputs.hidden[layer], batch, read)[0]


@pytest.fixture
def points(tmp_path):
    write_table(tmp_path / "data", lambda x, y: "high" if y > x else "low")
    return experiment_on(
        tmp_path / "data", Classes(("low", "high")), 1.0 * CrossEntropy()
    )


def test_embeddings_are_those_of_every_example_whatever_its_length(place):
    recipe = dataclasses.replace(
        tiny_experiment(widths=(16, 32)), teachers=(), objective=1.0 * CrossEntropy()
    )
    data = dataclasses.replace(recipe.data, fraction=0.1)
    recipe = dataclasses.replace(recipe, data=data, num_steps=2)
    wanted = (Embedding(1), Embedding(-1), Embedding(0, "first"))
    teacher, data, found = asked(recipe, place, on_train=True, embeddings=wanted)
    assert found.train is not None and len(found.embeddings) == 3
    few = np.arange(0, len(data.train), 37)
    data = data._replace(train=_Some(data.train, few))
    for one, vectors in found.embeddings.items():
        assert vectors.dtype == np.float32
        expected = [*one_by_one(teacher, data, one.layer, one.read)]
        np.testing.assert_allclose(vectors[few], expected, rtol=1e-4, atol=1e-5)


class _Some:
    """Some examples of a split."""

    def __init__(self, split, index):
        self.split, self.index = split, index

    def __len__(self):
        return len(self.index)

    def inputs(self, index):
        return self.split.inputs(self.index[index])


@pytest.mark.parametrize("sampled", [{}, {"unlabelled": 0.5, "label_noise": 0.4}])
def test_class_means_equal_a_loop_over_the_data_set(points, place, sampled):
    wanted = Embedding(-1, "mean", "class")
    teacher, data, found = asked(points, place, on_train=False, embeddings=[wanted])
    assert found.train is None
    task = dataclasses.replace(points.data, **sampled)
    sample = task.sample(data.train.labels, task.target)
    vectors = found.vectors([wanted], sample)
    assert [*vectors] == [wanted.name]
    sums, counts = np.zeros((2, 8)), np.zeros(2)
    for i, vector in enumerate(one_by_one(teacher, data, -1, "mean")):
        if sample.labelled[i]:
            sums[sample.labels[i]] += vector
            counts[sample.labels[i]] += 1
    assert counts.sum() == sample.num_labelled
    for i in np.flatnonzero(sample.labelled):
        k = sample.labels[i]
        np.testing.assert_allclose(
            vectors[wanted.name][np.array([i])][0], sums[k] / counts[k], rtol=1e-5
        )


def test_they_are_computed_once(points, place, monkeypatch):
    settings = {"on_train": True, "embeddings": (Embedding(-1), Embedding(0))}
    _, _, first = asked(points, place, **settings)
    cache = place.workspace.runs / "answers"
    files = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(files) == 3
    _, _, again = asked(points, place, **settings)
    assert files == {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    for one in settings["embeddings"]:
        np.testing.assert_array_equal(first.embeddings[one], again.embeddings[one])
    before = np.array(first.embeddings[Embedding(0)])
    # One that is damaged is made again, and it alone.
    (damaged,) = cache.glob("*-layer0-mean.npy")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    _, _, again = asked(points, place, **settings)
    changed = [path for path in files if path.stat().st_mtime_ns != files[path]]
    assert changed == [damaged]
    assert any("computing the teacher's answers again" in x for x in place.said)
    np.testing.assert_array_equal(before, again.embeddings[Embedding(0)])


@pytest.fixture
def taught(points):
    """Labels, relations in two layers, and the directions of the classes."""
    recipe = dataclasses.replace(points, student=MLP(widths=(12, 10)))
    relations = OverLayers(
        loss=RKDDistance(), student_layers=(0, 0), teacher_layers=(0, 1)
    )
    return dataclasses.replace(
        points,
        teachers=(Network(recipe=recipe),),
        objective=1.0 * CrossEntropy() + 1.0 * relations + 2.0 * NormAndDirection(),
    )


def losses(directory):
    rows = metrics_log.read(directory / "metrics.jsonl")
    return [row["loss"] for row in rows if row["split"] == "train"]


def test_cached_embeddings_teach_as_the_live_teacher_does(taught, place):
    workspace, said = place
    whole_and_resumed(taught, place)
    assert not any("runs in every step" in line for line in said)
    run.run(dataclasses.replace(taught, answers="live"), "live", workspace)
    cached, live = (losses(workspace.runs / n / "0") for n in ("whole", "live"))
    assert len(cached) == 20
    np.testing.assert_allclose(cached, live, rtol=1e-4)


def test_networks_that_read_other_vectors_learn_from_the_cache(points, place):
    """Each of its own layer, beside one that reads the logits alone."""
    recipe = dataclasses.replace(points, student=MLP(widths=(12, 10)))
    kd = CrossEntropy() + 1.0 * KL()
    peers = (Peer(objective=kd + 2.0 * RKDDistance(teacher_layer=0)), Peer())
    network = dataclasses.replace(
        points,
        student=MLP(widths=(8, 6)),
        teachers=(Network(recipe=recipe),),
        objective=kd + RKDDistance(teacher_layer=1),
        procedure=Online(peers=(*peers, Peer(objective=kd)), with_teachers=True),
        num_steps=5,
    )
    for name in ("cached", "live"):
        found = dataclasses.replace(network, answers=name)
        run.run(found, name, place.workspace)
        if name == "cached":
            assert not any("runs in every step" in line for line in place.said)
    cached, live = (losses(place.workspace.runs / n / "0") for n in ("cached", "live"))
    assert len(cached) == 5
    np.testing.assert_allclose(cached, live, rtol=1e-4)


@dataclasses.dataclass(frozen=True)
class Shrunk(View):
    """Inputs of half their size."""

    changes_answers = True

    def __call__(self, key, batch, ask=None):
        return {**batch, "inputs": batch["inputs"] / 2}


def test_no_view_changes_embeddings(taught, place):
    workspace, said = place
    run.run(dataclasses.replace(taught, view=Shrunk()), "view", workspace)
    assert "teacher: runs in every step, to see the view of the batch" in said


def test_what_cannot_be_cached_runs_the_teacher_live():
    first = RKDDistance(teacher_layer=1)
    assert not (CrossEntropy() + first).live_readers
    for other in (
        Hints(teacher_layer=1),
        AttentionMSE(),
        NormAndDirection(teacher_layer=1, read="all"),
        NormAndDirection(teacher_layer=1, read="first"),
    ):
        assert (CrossEntropy() + first + other).live_readers == [other.name]
    same_layer = first + NormAndDirection(teacher_layer=1)
    assert not same_layer.live_readers and len(same_layer.embeddings) == 2


def test_hidden_labels_take_no_part_in_the_directions(taught, place):
    """Their rows of class means are any, and must not matter."""
    workspace, _ = place
    data = dataclasses.replace(taught.data, unlabelled=0.5)
    run.run(dataclasses.replace(taught, data=data), "few", workspace)
    assert np.isfinite(losses(workspace.runs / "few" / "0")).all()


def test_half_precision_embeddings_are_kept_in_single():
    outputs = Outputs(jnp.zeros((3, 2)), (jnp.ones((3, 2), jnp.bfloat16),))
    assert answers.vector_of(Embedding(0))(outputs, {}).dtype == jnp.float32
