"""A teacher that answers another question: its hidden states alone teach."""

import dataclasses
import json

import numpy as np
import pytest
from test_room import experiment_on, whole_and_resumed

from kd import run
from kd.data.tables import TableTask
from kd.divergences import KL
from kd.errors import UserError
from kd.evaluate.classes import Classes
from kd.experiment import Network
from kd.features import DistanceCorrelation, EmbeddingCompression
from kd.models.mlp import MLP
from kd.objective import CrossEntropy
from kd.report.table import final_table

pytestmark = pytest.mark.slow

CLASSES, SIDES = ("low", "high"), ("left", "middle", "right")


def points(directory, labels, column, other):
    return TableTask(
        name="points", file="points.csv", label_column=column, ignored=(other,),
        target=Classes(labels), directory=directory,
    )  # fmt: skip


@pytest.fixture
def heights(tmp_path):
    """Labels alone, on points that have a side as well."""
    random = np.random.default_rng(0)
    (tmp_path / "data/points").mkdir(parents=True)
    rows = ["x,y,label,side"]
    for x, y in random.normal(size=(120, 2)):
        side = SIDES[int(x > -0.5) + int(x > 0.5)]
        rows.append(f"{x},{y},{CLASSES[int(y > 0)]},{side}")
    (tmp_path / "data/points/points.csv").write_text("\n".join(rows) + "\n")
    experiment = experiment_on(
        tmp_path / "data", Classes(CLASSES), 1.0 * CrossEntropy()
    )
    return dataclasses.replace(
        experiment, data=points(str(tmp_path / "data"), CLASSES, "label", "side")
    )


@pytest.fixture
def sides(heights):
    """The other task, whose recipe is a wider network."""
    return dataclasses.replace(
        heights,
        data=points(heights.data.directory, SIDES, "side", "label"),
        student=MLP(widths=(12, 10)),
    )


@pytest.fixture
def taught(heights, sides):
    objective = (
        CrossEntropy()
        + DistanceCorrelation()
        + EmbeddingCompression(width=3, teacher_layer=0)
    )
    return dataclasses.replace(
        heights, teachers=(Network(recipe=sides),), objective=objective
    ).sharing_data()


def test_it_teaches_by_its_hidden_states_from_the_cache(taught, sides, place):
    workspace, said = place
    summary, page = whole_and_resumed(taught, place)
    assert (
        "teacher: the teacher has 3 classes, the task has 2; its hidden states alone "
        "teach, and the student is not compared with it"
    ) in said
    assert not any("runs in every step" in line for line in said)
    # It learned its own task.
    assert taught.teachers[0].recipe == sides
    folder = run.folder_of(sides, workspace)
    config = json.loads((folder / "config.json").read_text())
    assert config["experiment"]["data"]["label_column"] == "side"
    found = json.loads((folder / "summary.json").read_text())
    assert found["student"]["accuracy"] > 0.6

    assert summary["fidelity"] is None and "accuracy" not in summary["teacher"]
    assert summary["teacher"]["num_params"] == 2 * 12 + 12 + 12 * 10 + 10 + 10 * 3 + 3
    assert "its teacher answers another question" in page
    assert "bar to reach" not in page
    assert "teacher" in final_table(summary)
    with np.load(workspace.runs / "whole/0/predictions.npz") as arrays:
        assert {*arrays} == {"labels", "student_logits"}


def test_the_baseline_may_have_it_too(taught, place):
    alone = dataclasses.replace(taught, objective=1.0 * CrossEntropy())
    summary = run.run(alone, "alone", place.workspace)
    assert summary["fidelity"] is None


def test_its_logits_are_no_answers(taught, sides, place):
    workspace, _ = place
    expected = (
        r"teacher has other outputs \(left, middle, right\) than the task \(low, "
        r"high\), and kl compares logits; losses of hidden states can learn from it"
    )
    with pytest.raises(ValueError, match=expected):
        dataclasses.replace(taught, objective=CrossEntropy() + KL())
    # In a place it is found before the first step.
    folder = run.make(sides, workspace)
    placed = dataclasses.replace(taught, teachers=(Network(place=str(folder)),))
    run.run(placed, "placed", workspace)
    wrong = dataclasses.replace(placed, objective=CrossEntropy() + KL())
    with pytest.raises(UserError, match="the teacher has 3 classes, the task has 2"):
        run.run(wrong, "wrong", workspace)
    assert not (workspace.runs / "wrong").exists()
