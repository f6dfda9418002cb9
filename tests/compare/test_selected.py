"""What a sweep selects of runs with known scores, and what a table makes of it."""

import dataclasses
import json
import pathlib

import pytest
from conftest import tiny_experiment

from kd.compare import selected
from kd.compare.cells import Cell
from kd.compare.table import Table
from kd.compare.tuning import Tuning
from kd.errors import UserError
from kd.objective import CrossEntropy

RATE = "optimizer.learning_rate"
PATH = pathlib.Path("results/tiny.tuned.json")


@pytest.fixture(scope="module")
def table():
    sinkd = tiny_experiment().sharing_data()
    labels = dataclasses.replace(sinkd, objective=1.0 * CrossEntropy())
    return Table(
        rows={"labels": labels, "SinKD": sinkd},
        baseline="labels",
        tuning=Tuning(grid={RATE: ("1e-4", "1e-3", "1e-2")}, seeds=(100, 101)),
        protocol="paper",
    )


def key_of(experiment):
    return f"{experiment.optimizer.learning_rate} {len(experiment.objective.terms)}"


def chosen(table, folder, scores):
    """What is selected; a score for each setting and seed, or why there is none."""
    trials = table.tuning.draw(table.rows)
    every = selected.table_of(trials, table)
    cells = []
    for row, of_row in zip(every.rows, scores, strict=True):
        for seed, score in zip(every.seeds, of_row, strict=True):
            directory = folder / f"{len(cells)}"
            directory.mkdir()
            cells.append(Cell(row, seed, every.cell(row, seed), directory))
            found = {"reason": score} if isinstance(score, str) else {}
            name = "failed.json" if found else "summary.json"
            # What is scored on test has no say: there the last would win.
            content = found or {"student": {"dev": score, "accuracy": 1 - score}}
            (directory / name).write_text(json.dumps(content))
    return selected.choose(table, trials, cells, key_of)


def test_the_best_mean_over_seeds(table, tmp_path):
    record = chosen(
        table, tmp_path,
        [(0.5, 0.9), (0.8, 0.8), (0.6, 0.6), (0.1, 0.2), (0.2, 0.2), (0.9, 0.1)],
    )  # fmt: skip
    labels, sinkd = record["rows"]
    assert labels["selected"] == [f"{RATE}=1e-3"]
    assert labels["mean"] == pytest.approx(0.8)
    # The first of equals would be the wrong one here: 0.5 is of a single good seed.
    assert sinkd["selected"] == [f"{RATE}=1e-2"]
    assert [seed["score"] for seed in sinkd["trials"][2]["seeds"]] == [0.9, 0.1]
    assert record["trials"] == 3 and record["seeds"] == [100, 101]
    assert record["metric"]["name"] == "accuracy"


def test_the_first_of_equals(table, tmp_path):
    record = chosen(table, tmp_path, [(0.5, 0.5)] * 6)
    assert [row["selected"] for row in record["rows"]] == [[f"{RATE}=1e-4"]] * 2


def test_a_trial_that_diverged_loses_and_is_shown(table, tmp_path):
    gone = "loss is nan at step 3"
    record = chosen(
        table, tmp_path,
        [(0.9, gone), (0.3, 0.3), (0.2, 0.2), (gone, 0.9), (gone, gone), (0.9, gone)],
    )  # fmt: skip
    labels, sinkd = record["rows"]
    assert labels["selected"] == [f"{RATE}=1e-3"]
    assert labels["trials"][0]["mean"] is None
    assert labels["trials"][0]["seeds"][1]["failed"] == gone
    assert sinkd["selected"] is None and sinkd["mean"] is None
    # Such a row runs as its experiment says.
    tuned = selected.applied(table, record, PATH, key_of)
    assert tuned.rows["SinKD"] == table.rows["SinKD"]
    assert tuned.rows["labels"].optimizer.learning_rate == 1e-3
    assert tuned.protocol == "paper" and tuned.seeds == table.seeds


def test_where_lower_is_better(table):
    nll = table.target.metric("nll")
    tried = [{"mean": mean} for mean in (0.4, None, 0.3, 0.5)]
    assert selected._best(tried, nll) == {"mean": 0.3}
    assert selected._best(tried, table.target.main) == {"mean": 0.5}


def test_trials_are_evaluated_as_any_run(table):
    every = selected.table_of(table.tuning.draw(table.rows), table)
    assert len(every.rows) == 6 and every.seeds == (100, 101)
    assert every.cell(f"SinKD, {RATE}=1e-2", 100).evaluate_every == 0


def test_rows_that_are_not_those_that_were_tuned(table, tmp_path):
    record = chosen(table, tmp_path, [(0.5, 0.5)] * 6)
    rate = dataclasses.replace(table.rows["labels"].optimizer, learning_rate=1e-5)
    other = dataclasses.replace(table.rows["labels"], optimizer=rate)

    def applied(rows):
        new = dataclasses.replace(table, rows=rows, baseline=next(iter(rows)))
        return selected.applied(new, record, PATH, key_of)

    assert [*applied({"SinKD": table.rows["SinKD"]}).rows] == ["SinKD"]
    with pytest.raises(UserError, match="has no row 'KL'; make sweep again"):
        applied({"KL": other})
    with pytest.raises(
        UserError, match=f"another row 'labels' .{RATE}: 0.003 -> 1e-05"
    ):
        applied({"labels": other})
    record["rows"][0]["key"] = "of other data"
    with pytest.raises(UserError, match=r"'labels' \(its data or networks\)"):
        applied({"labels": table.rows["labels"]})
