"""Whole runs on a part of the training set, and with a part of its labels."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from conftest import killed_at_batch, tiny_experiment

from kd import config, run
from kd.divergences import KL
from kd.errors import UserError
from kd.objective import CrossEntropy
from kd.train import metrics_log
from kd.train.mesh import data_mesh

pytestmark = pytest.mark.slow

LESS = (
    "data.fraction=0.1", "data.unlabelled=0.5", "data.label_noise=0.25",
    "data.subset_seed=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run on everything, and one on less."""
    runs = tmp_path_factory.mktemp("sample") / "runs"
    place = run.Workspace(runs, "mini", data_mesh(), print)
    tiny = tiny_experiment().sharing_data()
    run.run(tiny, "whole", place)
    run.run(config.override(tiny, *LESS).sharing_data(), "less", place)
    return runs


@pytest.fixture
def after(finished, place):
    shutil.copytree(finished, place.workspace.runs)
    return place


def summary_of(runs, name):
    return json.loads((runs / name / "0/summary.json").read_text())


def log_of(runs, name):
    rows = metrics_log.read(runs / name / "0/metrics.jsonl")
    for row in rows:
        row.pop("examples_per_second", None)
    return rows


def test_the_teacher_and_its_answers_are_shared(finished):
    assert len([*finished.glob("networks/*/summary.json")]) == 1
    # It was asked about a tenth where a tenth is learnt from.
    answers = [np.load(p) for p in finished.glob("networks/answers/*.npy")]
    asked = sorted(len(logits) for logits in answers)
    summaries = [summary_of(finished, name) for name in ("less", "whole")]
    assert asked == [s["data"]["sample"]["num_examples"] for s in summaries]
    whole, less = (summary_of(finished, name) for name in ("whole", "less"))
    for key in ("teacher", "task"):
        assert whole[key] == less[key]
    for key in ("fingerprint", "origin", "num_train", "num_dev"):
        assert whole["data"][key] == less["data"][key]
    ours, theirs = (
        np.load(finished / name / "0/predictions.npz") for name in ("whole", "less")
    )
    for name in ("labels", "teacher_logits"):
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_what_was_drawn_is_in_the_summary_and_on_the_page(finished):
    num_train = summary_of(finished, "whole")["data"]["num_train"]
    assert summary_of(finished, "whole")["data"]["sample"] == {
        "num_examples": num_train, "num_labelled": num_train, "num_changed_labels": 0,
        "num_answered": num_train,
    }  # fmt: skip
    drawn = summary_of(finished, "less")["data"]["sample"]
    assert abs(drawn["num_examples"] - num_train / 10) <= 1
    assert abs(drawn["num_labelled"] - num_train / 20) <= 2
    assert abs(drawn["num_changed_labels"] - num_train / 80) <= 1
    pages = [(finished / n / "0/report.html").read_text() for n in ("whole", "less")]
    assert ["of them labelled" in page for page in pages] == [False, True]


def test_a_run_goes_on_with_the_same_sample(after):
    workspace, said = after
    less = config.override(tiny_experiment(), *LESS).sharing_data()
    with killed_at_batch(13):
        run.run(less, "again", workspace)
    run.run(less, "again", workspace)
    assert "resuming after step 8 of 24" in said
    path = "0/model/model.safetensors"
    ours, theirs = ((workspace.runs / n / path) for n in ("again", "less"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert log_of(workspace.runs, "again") == log_of(workspace.runs, "less")


def test_another_sample_is_another_run(after):
    workspace, _ = after
    other = config.override(tiny_experiment(), *LESS, "data.fraction=0.2")
    with pytest.raises(UserError, match=r"data\.fraction: 0\.1 -> 0\.2"):
        run.run(other.sharing_data(), "less", workspace)


def test_a_teacher_of_the_sample_is_another_teacher(after):
    workspace, _ = after
    own = ("data.fraction=0.1", "teacher.recipe.data.fraction=0.1")
    run.run(config.override(tiny_experiment(), *own).sharing_data(), "own", workspace)
    summaries = workspace.runs.glob("networks/*/summary.json")
    drawn = [json.loads(s.read_text())["data"] for s in summaries]
    assert len(drawn) == 2
    few, many = sorted(data["sample"]["num_examples"] for data in drawn)
    assert few == pytest.approx(many / 10, abs=1)


def test_without_a_teacher_hidden_labels_take_no_part(after):
    workspace, said = after
    teacher = tiny_experiment().teacher
    assert teacher
    recipe = teacher.recipe
    few = config.override(recipe, "data.unlabelled=0.9", "num_steps=0", "num_epochs=2")
    summary = run.run(few, "few", workspace)
    drawn = summary["data"]["sample"]
    hidden = drawn["num_examples"] - drawn["num_labelled"]
    lines = [line for line in said if "take no part" in line]
    assert lines == [
        f"{hidden:,} examples without a label take no part: every term of the "
        "objective reads labels"
    ]
    assert summary["speed"]["steps"] == 2 * -(-drawn["num_labelled"] // 16)
    # They do where a teacher speaks of them.
    both = dataclasses.replace(
        tiny_experiment(), data=few.data, objective=CrossEntropy() + KL(),
        num_steps=0, num_epochs=1,
    )  # fmt: skip
    said.clear()
    summary = run.run(both.sharing_data(), "both", workspace)
    assert summary["speed"]["steps"] == -(-drawn["num_examples"] // 16)
    assert not any("take no part" in line for line in said)
