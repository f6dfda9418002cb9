"""`make sweep` as a person types it, and the table that runs with what it selected."""

import json
import re
import subprocess

import pytest

from kd.__main__ import main
from kd.compare import cells as cells_module
from kd.compare import command
from kd.train.signals import Interrupted

RATE = "optimizer.learning_rate"
WEIGHT = "objective.sinkd.weight"
GRID = f"--grid={RATE}=[3e-4,3e-3] {WEIGHT}=[1,3]"
SWEEP = ["sweep", "tiny", GRID, "--seeds=100"]


def complaint(capsys, *arguments):
    """The error line of a command that must fail."""
    assert main([*arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: ") and "\n" not in told
    return told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'tiny says no tuning of its own: which settings? For example GRID="'),
        (["--grid", f"{RATE}=3e-4"], "expected field=[value,value] for every field"),
        (
            ["--grid", "optimizer.rate=[1,2]"],
            "no field 'rate' in optimizer (fields: le",
        ),
        (["--grid", "objective.sinkdd.weight=[1,2]"], "did you mean sinkd?"),
        (["--grid", f"{RATE}=[1,x]"], f"{RATE}=x: expected a finite number"),
        (["--grid", f"{WEIGHT}=[1,2]"], "leaves row 'labels' one setting"),
        (["--grid", "num_steps=[6,7]"], "on different num_steps: 6 and 7"),
        ([GRID, "--seeds", "1,100"], "seeds 1 are of the table and of its tuning"),
        ([GRID, "--seeds", "a"], "SEEDS=a: expected whole numbers"),
        ([GRID, "--trials", "1"], "trials must be at least 2"),
        ([GRID, "--row", "KL"], "no row 'KL'; the rows are labels, KL + SinKD"),
        ([GRID, "--jobs", "0"], "JOBS must be at least 1"),
    ],
)
def test_a_line_for_what_is_wrong(capsys, here, arguments, message):
    runs = here / "nothing"
    told = complaint(capsys, "sweep", "tiny", *arguments, "--runs", str(runs))
    assert message in told
    assert not [*runs.glob("networks/*")]


def test_names(capsys, here):
    told = complaint(capsys, "sweep", "tinny", GRID)
    assert "no table or experiment 'tinny'; did you mean tiny?" in told
    assert main(["sweep"]) == 2
    shown = capsys.readouterr().out
    assert "  tiny_paper  The same by" in shown and "  tiny_sinkd  A tiny" in shown


def networks(here):
    return {path.parent for path in here.glob("runs/networks/*/summary.json")}


@pytest.fixture(scope="module")
def swept(here):
    """The record of a sweep that was stopped after one run, and gone on with."""
    making, calls = cells_module._make, []

    def stopped(*arguments):
        if len(calls) == 1:
            raise Interrupted(15, "stopped")
        calls.append(arguments)
        return making(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells_module, "_make", stopped)
        assert main(SWEEP) == 128 + 15
    assert not (here / "results").exists()
    first = networks(here)
    times = {path: (path / "summary.json").stat().st_mtime_ns for path in first}
    assert main(SWEEP) == 0
    assert {p: (p / "summary.json").stat().st_mtime_ns for p in first} == times
    return json.loads((here / "results" / "tiny.tuned.json").read_text())


@pytest.mark.slow
def test_every_row_has_the_same_budget_and_its_best_setting(swept, here):
    assert swept["trials"] == 2 and swept["seeds"] == [100]
    assert swept["grid"] == {RATE: ["3e-4", "3e-3"], WEIGHT: ["1", "3"]}
    labels, sinkd = swept["rows"]
    assert (labels["there"], sinkd["there"]) == (2, 4)
    assert [trial["setting"] for trial in labels["trials"]] == [
        [f"{RATE}=3e-4"],
        [f"{RATE}=3e-3"],
    ]
    for row in swept["rows"]:
        assert len(row["trials"]) == 2
        for trial in row["trials"]:
            (run,) = trial["seeds"]
            folder = here / "runs" / "networks" / run["key"]
            tried = json.loads((folder / "config.json").read_text())["experiment"]
            assert tried["seed"] == run["seed"] == 100
            rate = trial["setting"][0].partition("=")[2]
            assert tried["optimizer"]["learning_rate"] == float(rate)
            summary = json.loads((folder / "summary.json").read_text())
            assert summary["student"]["dev"] == run["score"] == trial["mean"]
            assert swept["data"]["fingerprint"] == summary["data"]["fingerprint"]
        means = [trial["mean"] for trial in row["trials"]]
        best = row["trials"][means.index(max(means))]
        assert row["selected"] == best["setting"] and row["mean"] == max(means)
    # A teacher and four trials.
    assert len(networks(here)) >= 5


@pytest.mark.slow
def test_it_is_found_again(swept, here, capsys):
    before = networks(here)
    assert main(SWEEP) == 0
    assert networks(here) == before
    shown = capsys.readouterr().out
    assert "2 trials x 1 seed (100) for every row; drawn from up to 4" in shown
    assert "4 runs, 4 there, 0 to make" in shown
    for row in swept["rows"]:
        assert f"{row['name']}: {' '.join(row['selected'])}; accuracy " in shown
    again = json.loads((here / "results" / "tiny.tuned.json").read_text())
    assert again == swept | {"made": again["made"]}
    assert not (here / "results" / "before").exists()


@pytest.mark.slow
def test_the_table_runs_with_the_selected_settings_and_says_so(swept, here):
    assert main(["table", "tiny"]) == 0
    record = json.loads((here / "results" / "tiny.json").read_text())
    pages = [(here / "results" / f"tiny.{end}").read_text() for end in ("md", "html")]
    for row, tuned in zip(record["rows"], swept["rows"], strict=True):
        rate = float(tuned["selected"][0].partition("=")[2])
        assert row["experiment"]["optimizer"]["learning_rate"] == rate
        for seed in row["seeds"]:
            folder = here / "runs" / "networks" / seed["key"]
            made = json.loads((folder / "config.json").read_text())["experiment"]
            assert made["optimizer"]["learning_rate"] == rate
        said = f'TUNED=no ARGS="{" ".join(tuned["selected"])}" ROW="{row["name"]}"'
        assert said in row["command"]
        for page in pages:
            assert " ".join(tuned["selected"]) in page
    assert record["tuning"]["rows"] == swept["rows"]
    for page in pages:
        assert (
            "Tuned with the same budget for every row, 2 trials x 1 seed (100)" in page
        )
        assert "2 of 4" in page  # settings of the row with SinKD


@pytest.mark.slow
def test_the_settings_may_be_left_unread(swept, here):
    one = ["--seeds=0", "--results=results"]
    assert main(["table", "tiny", "--tuned=no", *one]) == 0
    assert (here / "results" / "tiny.tuned.json").exists()
    record = json.loads((here / "results" / "tiny.json").read_text())
    rates = [row["experiment"]["optimizer"]["learning_rate"] for row in record["rows"]]
    assert record["tuning"] is None and rates == [3e-3, 3e-3]
    page = (here / "results" / "tiny.md").read_text()
    assert "Not tuned: the settings of each experiment." in page
    assert "TUNED=no" in page and RATE not in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["num_steps=5"], "is of another row 'labels' (num_steps: 6 -> 5); make sweep"),
        (["--seeds", "100,0"], "settings were selected with seeds 100, which"),
    ],
)
def test_settings_of_something_else_are_not_taken(
    swept, here, capsys, arguments, message
):
    assert message in complaint(capsys, "table", "tiny", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["{", "[]", '{"grid": {}}'])
def test_damaged_settings_are_named(here, capsys, tmp_path, content):
    (tmp_path / "tiny.tuned.json").write_text(content)
    told = complaint(capsys, "table", "tiny", "--results", str(tmp_path))
    assert re.search(
        r"tiny.tuned.json is damaged \(.+\); remove it and make sweep", told
    )


@pytest.mark.slow
def test_a_tuning_of_the_table_s_own_and_runs_that_are_shared(swept, here, capsys):
    assert main(["sweep", "tiny_tuned"]) == 0
    assert "4 runs, 4 there, 0 to make" in capsys.readouterr().out
    record = json.loads((here / "results" / "tiny_tuned.tuned.json").read_text())
    assert record["grid"] == {RATE: ["0.0003", "0.003"], WEIGHT: ["1", "3"]}
    for row, other in zip(record["rows"], swept["rows"], strict=True):
        assert row["mean"] == other["mean"]


@pytest.mark.slow
def test_a_part_of_a_sweep_selects_nothing(swept, here, capsys, tmp_path):
    assert main([*SWEEP, "--row", "labels", "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "2 runs, 2 there, 0 to make" in shown and "a part of the sweep" in shown
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_an_experiment_may_be_tuned_in_anything(here, capsys):
    assert main(["sweep", "tiny_sinkd", "--grid=num_steps=[5,6]", "--seeds=100"]) == 0
    record = json.loads((here / "results" / "tiny_sinkd.tuned.json").read_text())
    (row,) = record["rows"]
    assert [trial["setting"] for trial in row["trials"]] == [
        ["num_steps=5"],
        ["num_steps=6"],
    ]
    shown = capsys.readouterr().out
    assert f'make exp NAME=tiny_sinkd ARGS="{row["selected"][0]}"' in shown


@pytest.mark.slow
def test_runs_that_fail_are_no_reason_to_select_others(
    swept, here, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(
        cells_module, "_make", lambda *_: (0.0, "failed (no memory for it)", [])
    )
    told = complaint(
        capsys, "sweep", "tiny", f"--grid={RATE}=[3e-4,2e-3]", "--seeds=100",
        "--results", str(tmp_path),
    )  # fmt: skip
    assert f"3 runs have no result, first that of labels, {RATE}=2e-3, seed 100" in told
    assert not [*tmp_path.iterdir()]


def test_other_processes_sweep_too(here, monkeypatch):
    given = command.argparse.Namespace(jobs=3, worker=False)
    started = []

    class Process(subprocess.Popen):
        def __init__(self, line):
            started.append(line)

    monkeypatch.setattr(command.subprocess, "Popen", Process)
    command.other_processes("sweep", given, SWEEP[1:])
    assert [line[1:] for line in started] == [
        ["-m", "kd", *SWEEP, "--worker"],
        ["-m", "kd", *SWEEP, "--worker"],
    ]
