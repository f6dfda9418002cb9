"""From the folder of a run to its profile, and what bad folders get."""

import dataclasses
import json
import re
import shutil
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from kd import run
from kd.__main__ import main
from kd.data.glue import SST2
from kd.data.images import FASHION_MNIST
from kd.data.text import WordPiece
from kd.experiment import Experiment
from kd.models.bert import Bert
from kd.models.mlp import MLP
from kd.models.resnet import ResNet
from kd.objective import CrossEntropy
from kd.profile import page
from kd.profile.reopen import reopen
from kd.train.mesh import data_mesh
from kd.train.optimizer import AdamW

pytestmark = pytest.mark.slow


def write_images(directory, seed=0):
    """Fashion-MNIST of 6 x 6 pixels, each class with a bright pixel of its own."""
    random = np.random.default_rng(seed)
    (directory / "fashion-mnist").mkdir(parents=True)
    for part, num in (("train", 120), ("t10k", 60)):
        labels = (np.arange(num) % 10).astype(np.uint8)
        images = random.integers(0, 100, (num, 6, 6), dtype=np.uint8)
        images.reshape(num, 36)[np.arange(num), 3 * labels] = 255
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            path = directory / "fashion-mnist" / f"{part}-{name}-ubyte"
            path.write_bytes(head + array.tobytes())


def experiment_on(task, student):
    return Experiment(
        data=task,
        student=student,
        objective=1.0 * CrossEntropy(),
        optimizer=AdamW(learning_rate=1e-2),
        batch_size=20,
        num_steps=30,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Runs of an MLP on a sample with wrong labels, of a ResNet, and of a BERT."""
    folder = tmp_path_factory.mktemp("profile")
    write_images(folder / "data")
    workspace = run.Workspace(folder / "runs", "mini", data_mesh(), lambda text: None)
    images = dataclasses.replace(
        FASHION_MNIST, directory=str(folder / "data"), dev_share=0
    )
    noisy = dataclasses.replace(images, fraction=0.8, label_noise=0.5)
    text = dataclasses.replace(
        SST2, source="bundled", tokenizer=WordPiece(size=300), widths=(32,)
    )
    bert = Bert(num_layers=1, width=8, num_heads=2, mlp_width=8, max_length=32)
    for name, task, student in (
        ("mlp", noisy, MLP(widths=(32, 16))),
        ("resnet", images, ResNet(widths=(4, 8), num_blocks=1, num_groups=2)),
        ("bert", text, bert),
    ):
        experiment = experiment_on(task, student)
        if name == "bert":
            experiment = dataclasses.replace(experiment, num_steps=1)
        run.run(experiment, name, workspace)
    return folder


@pytest.fixture
def runs(finished, tmp_path):
    shutil.copytree(finished / "runs", tmp_path / "runs")
    return tmp_path / "runs"


def test_reopened_is_what_was_trained(finished):
    found = reopen(finished / "runs/mlp/0")
    assert found.task == dataclasses.replace(
        FASHION_MNIST,
        directory=str(finished / "data"),
        fraction=0.8,
        dev_share=0,
        label_noise=0.5,
    )
    assert found.network == MLP(widths=(32, 16))
    assert len(found.sample.kept) == 100 and found.sample.num_changed > 30
    with np.load(finished / "runs/mlp/0/predictions.npz") as stored:
        model = found.task.build(found.network)
        batch = found.data.dev.inputs(np.arange(len(found.data.dev)))
        logits = model.apply(
            found.params, {"inputs": jnp.asarray(batch["inputs"])}, None
        )
        np.testing.assert_allclose(logits.logits, stored["student_logits"], rtol=1e-4)


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_a_profile(runs, capsys, name):
    directory = runs / name / "0"
    before = {path: path.read_bytes() for path in (directory / "model").iterdir()}
    assert main(["profile", str(directory), "--examples=30", "--draws=2"]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 90 for line in shown.splitlines()[:-1]), shown
    assert "< funnel" in shown and "a diagnostic, not a bound" in shown
    record = json.loads((directory / "profile.json").read_text())
    assert record["kind"] == "diagnostic, not a bound"
    assert record["sampling"] == {
        "num_examples": 30, "num_draws": 2, "num_points": 64, "seed": 0,
    }  # fmt: skip
    names = [layer["name"] for layer in record["layers"]]
    assert names[0] == "inputs" and names[-1] == "logits"
    assert record["funnel"] in names
    least = min(record["layers"], key=lambda layer: layer["score"])
    assert least["name"] == record["funnel"]
    # Its scores on dev are the run's own.
    summary = json.loads((directory / "summary.json").read_text())
    np.testing.assert_allclose(
        record["scores"]["dev"]["nll"], summary["student"]["nll"], rtol=1e-4
    )
    html = (directory / "profile.html").read_text()
    assert "A diagnostic, not a bound." in html and "default-src 'none'" in html
    assert html.count("<svg") == 3 and not re.search(r'(src|href)="[^#"]', html)
    assert page.render(record) == html
    after = {path: path.read_bytes() for path in (directory / "model").iterdir()}
    assert after == before
    # The same again, whatever was there.
    (directory / "profile.json").unlink()
    assert main(["profile", str(directory), "--examples=30", "--draws=2"]) == 0
    assert json.loads((directory / "profile.json").read_text()) == record


def test_wrong_labels_show(runs):
    """What was learnt by heart is told apart from dev by the labels alone."""
    directory = runs / "mlp/0"
    assert main(["profile", str(directory), "--draws=1"]) == 0
    record = json.loads((directory / "profile.json").read_text())
    scores = record["scores"]
    # On the labels as learnt from.
    assert scores["train"]["nll"] < scores["dev"]["nll"]
    for layer in record["layers"]:
        assert layer["distance_error"] is None


def complaint(capsys, *arguments):
    assert main(["profile", *map(str, arguments)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def test_no_run(capsys, tmp_path):
    assert "which run? make profile RUN=" in complaint(capsys)
    line = complaint(capsys, tmp_path / "none")
    assert f"{tmp_path / 'none'} has no config.json; expected the folder of a" in line


def test_a_run_that_is_not_finished(capsys, runs):
    (runs / "mlp/0/summary.json").unlink()
    assert "0 has no summary.json; expected the fol" in complaint(
        capsys, runs / "mlp/0"
    )


def test_a_network_without_layers_of_one_shape(capsys, runs):
    assert "its network is a Bert; a profile needs" in complaint(
        capsys, runs / "bert/0"
    )


def test_other_data(capsys, runs, tmp_path):
    write_images(tmp_path / "other", seed=1)
    line = complaint(capsys, runs / "mlp/0", "--data-dir", tmp_path / "other")
    assert "was trained on other data than local fashion-mnist (120 train" in line
    line = complaint(capsys, runs / "mlp/0", "--data-dir", tmp_path / "nowhere")
    assert "nowhere is not a folder" in line


def test_settings_out_of_range(capsys, runs):
    line = complaint(capsys, runs / "mlp/0", "--draws=0")
    assert "num_draws must be at least 1, got 0" in line
    line = complaint(capsys, runs / "mlp/0", "--examples=x")
    assert "invalid int value: 'x'" in line


def edited(directory, change):
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["experiment"]["data"].update(name="mnits"),
            "no experiment in exp",
        ),
        (lambda c: c["experiment"]["data"].update(color=3), "no experiment in experim"),
        (lambda c: c.pop("data"), "config.json says nothing of 'data'; expected"),
        (lambda c: c.update(run=None), "config.json says nothing of"),
    ],
)
def test_a_config_that_says_something_else(capsys, runs, change, message):
    directory = edited(runs / "mlp/0", change)
    assert message in complaint(capsys, directory)
    assert not (directory / "profile.json").exists()
