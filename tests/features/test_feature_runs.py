"""Whole runs that read the teacher's hidden states, with a loss that learns itself."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

import kd.train.loop
from kd import run
from kd.errors import UserError
from kd.features import AttentionMSE, Hints, OverLayers, RKDDistance
from kd.objective import CrossEntropy
from kd.train import metrics_log
from kd.train.mesh import data_mesh

pytestmark = pytest.mark.slow


@pytest.fixture
def one_device(place):
    """A place with a mesh of one."""
    mesh = data_mesh(jax.devices()[:1])
    return place._replace(workspace=dataclasses.replace(place.workspace, mesh=mesh))


@pytest.fixture
def reader(tiny):
    """Labels, hidden states through a projection, relations and attention."""
    hints = OverLayers(loss=Hints(), student_layers=(0, 1), teacher_layers=(0, 1))
    objective = 1.0 * CrossEntropy() + 0.5 * hints + RKDDistance() + AttentionMSE()
    return dataclasses.replace(
        tiny,
        objective=objective,
        term_gradients="watched",
        num_steps=16,
    )


def weights(directory):
    return (directory / "model" / "model.safetensors").read_bytes()


def test_run_is_live_learns_its_projection_and_goes_on_after_a_stop(
    reader, one_device, monkeypatch
):
    workspace, said = one_device
    run.run(reader, "whole", workspace)
    directory = workspace.runs / "whole" / "0"
    names = "hints_layers, attention_mse"
    assert f"teacher: runs in every step, to give {names} more" in "\n".join(said)
    assert not list(workspace.runs.glob("teachers/**/*.npy")), "nothing to cache"

    rows = metrics_log.read(directory / "metrics.jsonl")
    hints = [row["loss/hints_layers"] for row in rows if row["split"] == "train"]
    assert np.mean(hints[-4:]) < 0.9 * np.mean(hints[:4])

    assert rows[0]["gradient/hints_layers"] > 0
    assert -1 <= rows[0]["cosine/ce/rkd_distance"] <= 1

    # The student alone is exported.
    exported = safetensors.numpy.load_file(directory / "model" / "model.safetensors")
    summary = json.loads((directory / "summary.json").read_text())
    assert sum(x.size for x in exported.values()) == summary["student"]["num_params"]
    assert all(name.startswith(("bert.", "classifier.")) for name in exported)

    place_batch, batches = kd.train.loop.shard_batch, 0

    def failing(batch, mesh):
        nonlocal batches
        batches += 1
        if batches == 10:
            raise RuntimeError("power cut")
        return place_batch(batch, mesh)

    with monkeypatch.context() as patch:
        patch.setattr(kd.train.loop, "shard_batch", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            run.run(reader, "stopped", workspace)
    run.run(reader, "stopped", workspace)
    assert any("resuming after step 8" in line for line in said)
    # The projection went on from where it was, or the student would be another.
    assert weights(workspace.runs / "stopped" / "0") == weights(directory)

    # Layers past the model are one line at the terminal.
    wrong = 1.0 * CrossEntropy() + Hints(student_layer=2)
    with pytest.raises(UserError, match="student layer 2: the student has layers 0 to"):
        run.run(dataclasses.replace(reader, objective=wrong), "wrong", workspace)
