"""Whole runs on points in the plane, each a second long."""

import json

import numpy as np
from conftest import killed_at_batch

from kd import run
from kd.data.tables import TableTask
from kd.experiment import Experiment
from kd.models.mlp import MLP
from kd.train import metrics_log
from kd.train.optimizer import AdamW


def write_table(directory, labels):
    random = np.random.default_rng(0)
    (directory / "points").mkdir(parents=True)
    rows = ["x,y,label"]
    for _ in range(120):
        x, y = random.normal(0, 1, 2)
        rows.append(f"{x},{y},{labels(x, y)}")
    (directory / "points/points.csv").write_text("\n".join(rows) + "\n")


def experiment_on(directory, target, objective, **fields):
    return Experiment(
        data=TableTask(
            name="points", file="points.csv", target=target, directory=str(directory)
        ),
        student=MLP(widths=(8,), dropout=0.1),
        objective=objective,
        optimizer=AdamW(learning_rate=5e-2),
        batch_size=16,
        num_steps=20,
        save_every=6,
        log_every=1,
        **fields,
    )


def whole_and_resumed(experiment, place):
    """Runs it twice, once with a kill between; both must leave the same."""
    workspace, said = place
    summary = run.run(experiment, "whole", workspace)
    with killed_at_batch(10):
        run.run(experiment, "again", workspace)
    run.run(experiment, "again", workspace)
    assert "resuming after step 6 of 20" in said
    whole, again = (workspace.runs / name / "0" for name in ("whole", "again"))
    ours, theirs = (
        [
            {k: v for k, v in row.items() if "second" not in k}
            for row in metrics_log.read(d / "metrics.jsonl")
        ]
        for d in (whole, again)
    )
    assert ours == theirs
    with (
        np.load(whole / "predictions.npz") as a,
        np.load(again / "predictions.npz") as b,
    ):
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])
    weights = "model/model.safetensors"
    assert (whole / weights).read_bytes() == (again / weights).read_bytes()
    assert json.loads((whole / "summary.json").read_text()) == summary
    return summary, (whole / "report.html").read_text()
