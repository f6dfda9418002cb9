"""Whole runs on images and tables, with networks that train in a second."""

import dataclasses
import json
import shutil
import struct

import jax
import numpy as np
import pytest
from conftest import killed_at_batch

from kd import config, run
from kd.data import sources
from kd.data.glue import SST2
from kd.data.images import ImageTask
from kd.data.tables import TableTask
from kd.divergences import KL, SinKD
from kd.errors import UserError
from kd.evaluate.accuracy import accuracy
from kd.evaluate.classes import Classes
from kd.experiment import Experiment, Network
from kd.models import hub, saved
from kd.models.bert import Bert
from kd.models.mlp import MLP
from kd.models.resnet import ResNet
from kd.networks import load as networks
from kd.networks.predict import predictor
from kd.objective import CrossEntropy
from kd.train import metrics_log
from kd.train.mesh import data_mesh
from kd.train.optimizer import AdamW

pytestmark = pytest.mark.slow


def experiment_on(task, student, teacher):
    recipe = Experiment(
        data=task,
        student=teacher,
        objective=1.0 * CrossEntropy(),
        optimizer=AdamW(learning_rate=1e-2, warmup=0.1),
        batch_size=16,
        num_steps=20,
        save_every=6,
        log_every=1,
    )
    return dataclasses.replace(
        recipe,
        student=student,
        teachers=(Network(recipe=recipe),),
        objective=0.5 * CrossEntropy() + 0.5 * KL(temperature=2.0) + 0.1 * SinKD(),
    )


def write_images(directory):
    """Ten classes of noise on 6 x 6 pixels, each with a bright pixel of its own."""
    random = np.random.default_rng(0)
    (directory / "spots").mkdir(parents=True)
    for part, num in (("train", 96), ("t10k", 40)):
        labels = (np.arange(num) % 10).astype(np.uint8)
        images = random.integers(0, 100, (num, 6, 6), dtype=np.uint8)
        images.reshape(num, 36)[np.arange(num), 3 * labels] = 255
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            path = directory / "spots" / f"{part}-{name}-ubyte"
            path.write_bytes(head + array.tobytes())


def write_table(directory):
    random = np.random.default_rng(0)
    (directory / "points").mkdir(parents=True)
    rows = ["x,y,label"]
    for _ in range(120):
        x, y = random.normal(50, 3, 2)
        rows.append(f"{x},{y},{'high' if y > 50 else 'low'}")
    (directory / "points" / "points.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Both experiments, and the folder where they have been run."""
    base = tmp_path_factory.mktemp("arrays")
    write_images(base / "data")
    write_table(base / "data")
    names = tuple(f"class {i}" for i in range(10))
    spots = ImageTask(name="spots", target=Classes(names), directory=str(base / "data"))
    points = TableTask(
        name="points", file="points.csv", target=Classes(("low", "high")),
        directory=str(base / "data"),
    )  # fmt: skip
    experiments = {
        "spots": experiment_on(
            spots,
            ResNet(widths=(4,), num_blocks=1, num_groups=2, stem_stride=2),
            MLP(widths=(32,)),
        ),
        "points": experiment_on(points, MLP(widths=(4,)), MLP(widths=(16,))),
    }
    place = run.Workspace(base / "runs", "mini", data_mesh(), print)
    for name, experiment in experiments.items():
        run.run(experiment, name, place)
    return experiments, base / "runs"


@pytest.fixture
def after(finished, place):
    """The experiments, and a place of one's own where they have been run."""
    experiments, runs = finished
    shutil.copytree(runs, place.workspace.runs)
    return experiments, place.workspace


@pytest.mark.parametrize("name", ["spots", "points"])
def test_a_run_leaves_everything_that_is_looked_at(finished, name):
    experiments, runs = finished
    directory = runs / name / "0"
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["data"]["source"] == "local"
    assert summary["teacher"]["accuracy"] > (0.5 if name == "spots" else 0.8)
    assert -1 <= summary["student"]["mcc"] <= 1
    assert {path.name for path in (directory / "model").iterdir()} == {
        "config.json", "model.safetensors", "normalization.json", "README.md",
    }  # fmt: skip
    page = (directory / "report.html").read_text()
    assert "Matthews correlation" in page
    # The plan of ten classes names them; that of two says which one rises.
    assert ("class 9" if name == "spots" else "rising p(high)") in page

    # What was exported predicts what was reported.
    task = experiments[name].data
    corpus = sources.load(task)
    data = task.prepare(corpus, directory / "model")
    network, labels = saved.read_config(directory / "model")
    assert labels == task.labels
    model = network.build(len(labels))
    template = jax.eval_shape(
        model.init, jax.random.key(0), data.dev.inputs(np.arange(1))
    )
    params = saved.load(directory / "model", network, template).params
    predict = predictor(model, mesh=data_mesh(jax.devices()[:1]))
    final = data.test if name == "spots" else data.dev
    found = predict(params, final)
    reported = np.load(directory / "predictions.npz")
    np.testing.assert_allclose(found, reported["student_logits"], rtol=1e-4, atol=1e-5)

    # Training is watched on dev; test is scored once.
    split = "test" if name == "spots" else "dev"
    assert (summary["data"]["final"], summary["data"]["num_final"]) == (
        split, len(final),
    )  # fmt: skip
    assert summary["student"]["accuracy"] == accuracy(found, final.labels)
    *_, last = metrics_log.read(directory / "metrics.jsonl")
    assert summary["student"]["dev"] == last["accuracy"]
    assert last["accuracy"] == pytest.approx(
        accuracy(predict(params, data.dev), data.dev.labels)
    )
    assert f"accuracy on {split} is" in page


@pytest.mark.parametrize("name", ["spots", "points"])
def test_a_run_goes_on_where_it_was_killed(after, name):
    experiments, workspace = after
    whole = workspace.runs / name / "0"
    with killed_at_batch(10):
        run.run(experiments[name], "again", workspace)
    said = []
    run.run(experiments[name], "again", dataclasses.replace(workspace, say=said.append))
    assert "resuming after step 6 of 20" in said

    again = workspace.runs / "again" / "0"
    for path in ("model/model.safetensors", "model/normalization.json"):
        assert (again / path).read_bytes() == (whole / path).read_bytes()
    ours, theirs = (metrics_log.read(d / "metrics.jsonl") for d in (again, whole))
    for row in ours + theirs:
        row.pop("examples_per_second", None)
    assert ours == theirs


def test_a_trained_teacher_brings_its_normalization(after, tmp_path):
    experiments, workspace = after
    (of_teacher,) = (
        path.parent
        for path in workspace.runs.glob("networks/*/model")
        if len(saved.read_config(path).labels) == 10
    )
    path = of_teacher / "model" / "normalization.json"
    path.write_text('{"mean": [40.0], "std": [50.0]}')
    given = config.override(experiments["spots"], f"teacher={of_teacher}")
    run.run(given, "given", workspace)
    own = workspace.runs / "given/0/model/normalization.json"
    assert json.loads(own.read_text()) == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (ResNet(widths=(4,), num_groups=2), "is a ResNet, which does not read tab"),
        (
            Bert(num_layers=1, width=8, num_heads=2),
            "teacher is a Bert, which does not read tables",
        ),
    ],
)
def test_a_teacher_of_something_else_is_refused(after, tmp_path, network, message):
    experiments, workspace = after
    example = {"inputs": np.zeros((1, 8, 8, 1), np.float32)}
    params = jax.jit(network.build(2).init)(jax.random.key(0), example)
    saved.save(tmp_path / "other", network, params, labels=("low", "high"))
    model = workspace.runs / "points/0/model"
    shutil.copy(model / "normalization.json", tmp_path / "other")
    given = config.override(experiments["points"], f"teacher={tmp_path / 'other'}")
    with pytest.raises(UserError, match=message):
        run.run(given, "given", workspace)


def test_a_teacher_of_as_many_other_classes_is_refused(finished, tmp_path):
    experiments, runs = finished
    task = experiments["points"].data
    directory = shutil.copytree(runs / "points/0/model", tmp_path / "model")
    data = task.prepare(sources.load(task), directory)

    def load(*labels):
        path = directory / "config.json"
        named = {"id2label": {str(i): label for i, label in enumerate(labels)}}
        path.write_text(json.dumps(json.loads(path.read_text()) | named))
        found = networks.Found(str(directory), "here")
        return networks.load(found, task, data, "float32").fingerprint

    for others in (("cat", "dog"), ("high", "low")):
        with pytest.raises(UserError, match=f"classes are {others[0]}, {others[1]} in"):
            load(*others)
    # Case does not matter, and some networks do not say.
    assert load("LOW", "High") == load("LABEL_0", "LABEL_1")


def test_weights_to_start_from(after):
    experiments, workspace = after
    before = workspace.runs / "points/0/model"
    said = []
    begun = config.override(experiments["points"], f"start={before}")
    run.run(begun, "begun", dataclasses.replace(workspace, say=said.append))
    assert f"weights to start from: {before}" in said
    first, *_ = metrics_log.read(workspace.runs / "begun/0/metrics.jsonl")
    *_, last = metrics_log.read(workspace.runs / "points/0/metrics.jsonl")
    assert abs(first["loss/ce"] - last["nll"]) < 0.2
    assert hub.fingerprint(str(before)) != str(before)

    other = config.override(
        experiments["spots"], f"start={before}", f"teacher={workspace.runs / 'spots/0'}"
    )
    with pytest.raises(UserError, match="its tokenizer or normalization is not that"):
        run.run(other, "other", workspace)
    deeper = dataclasses.replace(
        experiments["points"],
        start=Network(place=str(before)),
        student=MLP(widths=(5, 6), dropout=0.5),
    )
    said.clear()
    with pytest.raises(UserError, match=r"it has widths \(4,\), not \(5, 6\)"):
        run.run(deeper, "deeper", dataclasses.replace(workspace, say=said.append))
    assert not any("teacher" in line for line in said)  # before it is asked


def test_networks_that_cannot_read_the_task(finished):
    experiments, _ = finished
    with pytest.raises(ValueError, match="student is a ResNet, which does not read ta"):
        dataclasses.replace(experiments["points"], student=ResNet())
    with pytest.raises(ValueError, match="student is a Bert, which reads text, not i"):
        dataclasses.replace(experiments["spots"], student=Bert())
    with pytest.raises(ValueError, match="student is a MLP, which does not read text"):
        dataclasses.replace(experiments["spots"], data=SST2, student=MLP())
