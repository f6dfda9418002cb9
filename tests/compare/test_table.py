"""A table from its record to its pages, on tables of tiny runs."""

import csv
import dataclasses
import io
import json
import shutil
from typing import Any

import numpy as np
import pytest
from conftest import tiny_experiment

from kd import catalog, config
from kd.__main__ import main
from kd.compare import cells as cells_module
from kd.compare import page, text, words
from kd.compare.cells import cells, make
from kd.compare.judge import judge
from kd.compare.table import Claim, Table
from kd.errors import Diverged, UserError
from kd.objective import CrossEntropy
from kd.train.signals import Interrupted


def tiny_table(**changes):
    tiny = dataclasses.replace(tiny_experiment().sharing_data(), num_steps=6)
    labels = dataclasses.replace(tiny, objective=1.0 * CrossEntropy())
    whole = Table(
        rows={"labels": labels, "SinKD": tiny},
        baseline="labels",
        seeds=(0, 1),
        also=("nll", "agreement"),
        claims=(Claim("SinKD", "labels", "cui2024sinkhorn"),),
    )
    return dataclasses.replace(whole, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workspace in which all runs of the tiny table are made, and what was said."""
    from kd.run import Workspace
    from kd.train.mesh import data_mesh

    folder = tmp_path_factory.mktemp("table")
    workspace = Workspace(folder / "runs", "mini", data_mesh(), lambda _: None)
    said = []
    make(cells(tiny_table(), workspace), workspace, say=said.append)
    return workspace, said


def recorded(table, workspace) -> dict[str, Any]:
    made = {"command": "make table", "device": "here", "versions": "", "finished": ""}
    record: dict[str, Any] = {
        "name": "tiny",
        "headline": "Tiny.",
        **judge(table, cells(table, workspace)),
        "tuning": None,
        "made": made,
    }
    for row in record["rows"]:
        row["command"] = f'make table ROW="{row["name"]}"'
    return record


@pytest.mark.slow
def test_every_run_is_told_with_the_time_left(finished):
    _, said = finished
    assert said[0] == "4 runs, 0 there, 4 to make"
    assert said[1].startswith("1/4 labels, seed 0: accuracy 0.")
    assert said[1].endswith("left") and "left" not in said[-1]
    assert said[-1].startswith("4/4 SinKD, seed 1: accuracy 0.")


@pytest.mark.slow
def test_one_teacher_and_nothing_twice(finished):
    workspace, _ = finished
    networks = [*(workspace.runs / "networks").glob("*/summary.json")]
    assert len(networks) == 1 + 4
    times = {path: path.stat().st_mtime_ns for path in networks}
    said = []
    make(cells(tiny_table(), workspace), workspace, say=said.append)
    assert said == ["4 runs, 4 there, 0 to make"]
    # Another table with the same runs makes none either.
    other = tiny_table(seeds=(1,), metric="nll", also=())
    make(cells(other, workspace), workspace, say=said.append)
    assert said[1:] == ["2 runs, 2 there, 0 to make"]
    assert {path: path.stat().st_mtime_ns for path in networks} == times


@pytest.mark.slow
def test_the_numbers_are_those_of_the_runs(finished):
    workspace, _ = finished
    table = tiny_table()
    record = judge(table, cells(table, workspace))
    summaries = {
        (cell.row, cell.seed): json.loads((cell.directory / "summary.json").read_text())
        for cell in cells(table, workspace)
    }
    for row in record["rows"]:
        for name in ("accuracy", "nll"):
            ours = [summaries[row["name"], s]["student"][name] for s in (0, 1)]
            assert row["scores"][name]["mean"] == pytest.approx(np.mean(ours))
            assert [s["scores"][name] for s in row["seeds"]] == pytest.approx(ours)
        agreed = [summaries[row["name"], s]["fidelity"]["agreement"] for s in (0, 1)]
        assert row["scores"]["agreement"]["mean"] == pytest.approx(np.mean(agreed))
    labels, sinkd = record["rows"]
    assert sinkd["differences"]["nll"]["mean"] == pytest.approx(
        sinkd["scores"]["nll"]["mean"] - labels["scores"]["nll"]["mean"]
    )
    teacher = summaries["labels", 0]["teacher"]["accuracy"]
    assert record["gap"]["teacher"] == pytest.approx(teacher)
    assert record["gap"]["gap"] == pytest.approx(
        teacher - labels["scores"]["accuracy"]["mean"]
    )


@pytest.mark.slow
def test_pages_say_the_same(finished):
    workspace, _ = finished
    record = recorded(tiny_table(), workspace)
    shown, drawn = text.markdown(record), page.html(record)
    accuracy = record["metrics"][0]
    for row in record["rows"]:
        entry = words.interval(row["scores"]["accuracy"], accuracy)
        assert entry in shown and entry in drawn
        for seed in row["seeds"]:
            assert f"runs/networks/{seed['key']}" in drawn
            assert (
                f'ROW="{row["name"]}" SEEDS={seed["seed"]}'.replace('"', "&quot;")
                in drawn
            )
    nll = record["metrics"][1]
    less = words.interval(record["rows"][1]["differences"]["nll"], nll, signed=True)
    assert f"| SinKD | {less} (" in shown and less in drawn
    assert words.gap(record) in shown
    # The teacher's answers are asked for once, and by SinKD alone.
    assert [words.queries(row) for row in record["rows"]] == [
        "0", f"{record['data']['num_train']:,}",
    ]  # fmt: skip
    assert "| teacher queries |" in shown and "teacher queries</th>" in drawn
    for row in record["rows"]:
        for seed in row["seeds"]:
            del seed["teacher_queries"]
    assert "teacher queries" not in text.markdown(record)
    assert drawn.count("<svg") == 1 and "http://www.w3.org" in drawn
    assert "<script" not in drawn
    lines = [*csv.DictReader(io.StringIO(text.comma_separated(record)))]
    assert [(line["row"], line["seed"]) for line in lines] == [
        ("labels", "0"), ("labels", "1"), ("SinKD", "0"), ("SinKD", "1"),
    ]  # fmt: skip
    assert float(lines[0]["nll"]) == record["rows"][0]["seeds"][0]["scores"]["nll"]


@pytest.mark.slow
def test_a_table_that_was_stopped_goes_on_to_the_same(finished, tmp_path):
    workspace, _ = finished
    whole = recorded(tiny_table(), workspace)
    again = dataclasses.replace(workspace, runs=tmp_path / "runs")
    making = cells_module._make
    calls = []

    def stopped(*arguments):
        if len(calls) == 2:
            raise Interrupted(15, "now")
        calls.append(arguments)
        return making(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells_module, "_make", stopped)
        with pytest.raises(Interrupted):
            make(cells(tiny_table(), again), again, say=[].append)
    partly = recorded(tiny_table(), again)
    assert "2 of 4 runs have no result" in words.seeds(partly)
    make(cells(tiny_table(), again), again, say=[].append)
    assert recorded(tiny_table(), again) == whole


@pytest.mark.slow
def test_a_run_that_diverges_is_shown_and_costs_no_other(finished, tmp_path):
    workspace, _ = finished
    runs = tmp_path / "runs"
    shutil.copytree(workspace.runs, runs)
    workspace = dataclasses.replace(workspace, runs=runs)
    table = tiny_table(seeds=(0, 1, 2))
    making, said = cells_module.run.make, []

    def diverging(experiment, workspace, **options):
        if experiment == table.cell("SinKD", 2):
            cells(table, workspace)[-1].directory.mkdir()
            raise Diverged("loss is nan at step 3")
        return making(experiment, workspace, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells_module.run, "make", diverging)
        make(cells(table, workspace), workspace, say=said.append)
    assert "SinKD, seed 2: diverged (loss is nan at step 3)" in said[-1]
    record = recorded(table, workspace)
    assert record["rows"][0]["scores"]["accuracy"]["num_seeds"] == 3
    assert record["rows"][1]["scores"]["accuracy"]["num_seeds"] == 2
    assert record["rows"][1]["differences"]["accuracy"]["num_seeds"] == 2
    assert "SinKD, seed 2: loss is nan at step 3" in text.markdown(record)
    make(cells(table, workspace), workspace, say=said.append)
    assert said[-1] == "6 runs, 5 there, 1 that diverged before, 0 to make"


@pytest.mark.slow
def test_one_seed_has_no_interval_and_says_so(finished):
    workspace, _ = finished
    table = tiny_table(seeds=(0,))
    record = recorded(table, workspace)
    assert record["rows"][0]["scores"]["accuracy"]["low"] is None
    assert "no difference can be told from chance" in words.gap(record)
    assert "1 seed, so no interval and no test" in words.seeds(record)
    assert page.html(record)


@pytest.mark.slow
def test_damaged_predictions_are_named(finished, tmp_path):
    workspace, _ = finished
    shutil.copytree(workspace.runs, tmp_path / "runs")
    workspace = dataclasses.replace(workspace, runs=tmp_path / "runs")
    wanted = cells(tiny_table(), workspace)
    (wanted[0].directory / "predictions.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"predictions.npz is damaged .*; remove "):
        judge(tiny_table(), wanted)


def test_a_gap_below_what_can_be_seen_says_nothing_of_distillation():
    metric = {"name": "accuracy", "title": "accuracy", "percent": True}
    record = {
        "metrics": [metric],
        "baseline": "labels",
        "smallest_difference": {"accuracy": 0.02},
        "gap": {"teacher": 0.81, "baseline": 0.80, "gap": 0.01, "told": False},
    }
    assert words.gap(record) == (
        "Teacher 81.00, labels 80.00 (accuracy, %): a gap of +1.00 points. This table "
        "can tell nothing about distillation: the gap is below the smallest difference "
        "that it could have seen, 2.00 points."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "CE"}, "the baseline 'CE' is no row; the rows are labels, SinKD"),
        ({"seeds": (1, 1)}, "all different"),
        ({"metric": "bleu"}, "no metric 'bleu'; there are accuracy"),
        ({"claims": (Claim("KL", "labels", "x"),)}, "a claim names 'KL'"),
        ({"published": {"KL": "91.5"}}, "a published value is of 'KL'"),
        ({"rows": {}}, "the table has no rows"),
    ],
)
def test_what_no_table_can_be(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_table(**changes)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("data.fraction=0.5", "data.fraction"),
        ("num_steps=7", "num_steps"),
        ("teacher.recipe.num_steps=7", "teachers"),
    ],
)
def test_rows_that_differ_in_more_than_the_method_are_refused(change, field):
    rows = dict(tiny_table().rows)
    rows["other"] = config.override(rows["SinKD"], change)
    with pytest.raises(ValueError, match="rows 'labels' and 'other' are on different"):
        tiny_table(rows=rows)
    assert tiny_table(rows=rows, differ_in=(field,)).rows["other"] == rows["other"]


def test_the_list_and_an_unknown_name(capsys):
    assert main(["table"]) == 2
    shown = capsys.readouterr().out
    for name in catalog.names(catalog.TABLES):
        assert f"  {name} " in shown
    assert main(["table", "gtzan_divergence"]) == 2
    assert "no table 'gtzan_divergence'; did you mean gtzan_divergences?" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", catalog.names(catalog.TABLES))
@pytest.mark.parametrize("scale", ["mini", "small", "paper"])
def test_tables_in_the_project_are_tables(name, scale):
    assert isinstance(catalog.load(name, scale, catalog.TABLES), Table)
