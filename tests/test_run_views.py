"""Whole runs on two views: they go on bit for bit, and their page shows the probes."""

import dataclasses

import numpy as np
import pytest
from data.test_digit_grids import task, write_digits
from test_room import whole_and_resumed

from kd.experiment import Experiment
from kd.features.predictive_coding import InfoNCE, WassersteinPredictiveCoding
from kd.models.mlp import MLP
from kd.procedures.contrastive import Contrastive
from kd.train import metrics_log
from kd.train.optimizer import AdamW

pytestmark = pytest.mark.slow


@pytest.fixture
def experiment(tmp_path):
    labels = {"train": np.arange(200) % 10, "t10k": np.arange(60) % 10}
    write_digits(tmp_path / "data", labels)
    made = task(tmp_path / "data", num_digits=2, dev_share=0.3)
    target = dataclasses.replace(made.target, width=8)
    return Experiment(
        data=dataclasses.replace(made, target=target, num_dev=400),
        student=MLP(widths=(16,)),
        objective=1.0 * WassersteinPredictiveCoding(width=8),
        procedure=Contrastive(lipschitz="penalty"),
        optimizer=AdamW(learning_rate=1e-2),
        batch_size=16,
        num_steps=20,
        save_every=6,
        log_every=1,
    )


@pytest.mark.parametrize("lipschitz", ["penalty", "exact"])
def test_goes_on_bit_for_bit(place, experiment, lipschitz):
    procedure = Contrastive(lipschitz=lipschitz)
    experiment = dataclasses.replace(experiment, procedure=procedure)
    summary, page = whole_and_resumed(experiment, place)
    assert summary["task"]["main"] == "probe_accuracy"
    student = summary["student"]
    assert 0.05 < student["probe_accuracy"] <= 1
    assert student["digits_recovered"] <= 2 and summary["teacher"] is None
    assert "linear probes for the digits" in page and "of 4.6" in page
    rows = metrics_log.read(place.workspace.runs / "whole/0/metrics.jsonl")
    assert ("loss/wpc_penalty" in rows[0]) == (lipschitz == "penalty")
    assert all("loss/wpc" in row for row in rows if row["split"] == "train")


def test_dropout_is_in_the_key(place, experiment):
    """An encoder with randomness of its own goes on bit for bit, too."""
    student = MLP(widths=(16,), dropout=0.2)
    whole_and_resumed(
        dataclasses.replace(
            experiment, student=student, objective=1.0 * InfoNCE(width=8),
            procedure=Contrastive(),
        ),
        place,
    )  # fmt: skip
