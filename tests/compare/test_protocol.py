"""The published protocol, the best of many evaluations, beside the last checkpoint."""

import dataclasses
import json

import numpy as np
import pytest
from conftest import tiny_experiment
from scipy import stats

from kd.compare import text, words
from kd.compare.cells import Cell, cells, make
from kd.compare.judge import _best, judge
from kd.compare.table import Table
from kd.objective import CrossEntropy
from kd.train import metrics_log


def tiny_table(**changes):
    tiny = dataclasses.replace(tiny_experiment().sharing_data(), num_steps=12)
    labels = dataclasses.replace(tiny, objective=1.0 * CrossEntropy())
    whole = Table(rows={"labels": labels, "SinKD": tiny}, baseline="labels")
    return dataclasses.replace(whole, protocol="paper", **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace, the cells of a table by the published protocol, what they say."""
    from kd.run import Workspace
    from kd.train.mesh import data_mesh

    folder = tmp_path_factory.mktemp("protocol")
    workspace = Workspace(folder / "runs", "mini", data_mesh(), lambda _: None)
    table = tiny_table(seeds=(0, 1, 2), metric="nll")
    wanted = cells(table, workspace)
    make(wanted, workspace, say=[].append)
    return workspace, wanted, judge(table, wanted)


def curve(cell):
    rows = metrics_log.read(cell.directory / "metrics.jsonl")
    return {row["step"]: row["accuracy"] for row in rows if row["split"] == "dev"}


@pytest.mark.slow
def test_the_best_of_an_evaluation_every_5_steps(made):
    _, wanted, record = made
    for row in record["rows"]:
        best = []
        for cell in wanted:
            if cell.row == row["name"]:
                found = curve(cell)
                assert [*found] == [5, 10, 12]
                best.append(max(found.values()))
        assert row["best"]["mean"] == pytest.approx(np.mean(best))
        assert row["best"]["num_seeds"] == len(best) == 3


def test_intervals_over_seeds_of_the_best_evaluations(tmp_path):
    def of_row(name, bests):
        made = []
        for seed, best in bests.items():
            directory = tmp_path / f"{name}{seed}"
            directory.mkdir()
            if best is not None:
                summary = {"student": {"best": {"value": best}}}
                (directory / "summary.json").write_text(json.dumps(summary))
            made.append(Cell(name, seed, tiny_table().rows["labels"], directory))
        return made

    labels = of_row("labels", {0: 0.70, 1: None, 2: 0.75, 3: 0.71})
    sinkd = of_row("SinKD", {0: 0.80, 1: 0.70, 2: 0.78, 3: None})
    found = _best(sinkd, labels)
    ours = [0.80, 0.70, 0.78]
    assert described(found["best"]) == t_interval(ours)
    # Seeds 0 and 2 are those that both finished.
    assert described(found["best_difference"]) == t_interval([0.10, 0.03])
    assert found["best_difference"]["num_seeds"] == 2
    assert _best(labels, labels)["best_difference"] is None
    one = _best(sinkd[:1], labels)["best"]
    assert (one["mean"], one["low"], one["high"]) == (0.80, None, None)
    assert _best(sinkd[3:], labels) == {"best": None, "best_difference": None}


def described(entry):
    return [entry["mean"], entry["low"], entry["high"]]


def t_interval(scores):
    mean = np.mean(scores)
    half = stats.t.ppf(0.975, len(scores) - 1) * stats.sem(scores)
    return pytest.approx([mean, mean - half, mean + half])


@pytest.mark.slow
def test_the_page_shows_both(made):
    _, _, record = made
    record |= {
        "name": "tiny",
        "headline": "Tiny.",
        "tuning": None,
        "made": {"command": "make table", "device": "here"},
    }
    for row in record["rows"]:
        row["command"] = "make table"
    assert text.header(record)[1:] == [
        "NLL", "less labels", "p (Holm)", "best evaluation, accuracy, %",
        "best less labels", "teacher queries",
    ]  # fmt: skip
    percent = {"percent": True}
    labels, sinkd = [*text.body(record)]
    best, less = (record["rows"][1][name] for name in ("best", "best_difference"))
    assert sinkd[-3:-1] == [
        words.interval(best, percent),
        words.interval(less, percent, signed=True),
    ]
    assert "[" in sinkd[-3] and labels[-2] == "–"
    shown = text.markdown(record)
    assert "of one every 5 steps" in shown and "over seeds alone" in shown
    assert "best checkpoint" not in shown


@pytest.mark.slow
def test_a_run_that_was_evaluated_otherwise_is_not_taken_for_one(made):
    workspace, wanted, record = made
    table = tiny_table(seeds=(0, 1, 2), metric="nll")
    last = dataclasses.replace(table, protocol="last")
    others = cells(last, workspace)
    assert {cell.directory for cell in wanted}.isdisjoint(
        cell.directory for cell in others
    )
    assert not any(cell.finished for cell in others)
    make(others[:1], workspace, say=[].append)
    assert [*curve(others[0])] != [5, 10, 12]
    # How often it is looked at changes nothing of the network.
    ours, theirs = (cell.summary()["student"] for cell in (wanted[0], others[0]))
    del ours["best"], theirs["best"]
    assert ours == theirs
    assert judge(table, wanted)["rows"] == [
        {k: v for k, v in row.items() if k != "command"} for row in record["rows"]
    ]
    # Its rows are the same; the page is another.
    told = judge(last, others)
    assert told["protocol"] == "last" and "best" not in told["rows"][0]
    assert told["rows"][0]["experiment"] == record["rows"][0]["experiment"]
    assert json.dumps(told)


def test_protocols():
    table = tiny_table()
    assert table.cell("SinKD", 3).evaluate_every == 5
    last = dataclasses.replace(table, protocol="last")
    assert last.cell("SinKD", 3).evaluate_every == last.rows["SinKD"].evaluate_every
    # Outside the tests nothing else checks the types of what a module says.
    object.__setattr__(table, "protocol", "best")
    with pytest.raises(ValueError, match="protocol must be last or paper, got 'best'"):
        table.__post_init__()
