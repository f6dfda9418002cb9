"""Which settings are tried: as many of every row, drawn from what it has."""

import dataclasses
import itertools

import pytest
from conftest import tiny_experiment

from kd.compare.table import Table
from kd.compare.tuning import Tuning, changed, grid_in
from kd.errors import UserError
from kd.objective import CrossEntropy

RATE = "optimizer.learning_rate"
WEIGHT = "objective.sinkd.weight"


@pytest.fixture(scope="module")
def rows():
    """One without the transport term, one with it."""
    sinkd = tiny_experiment().sharing_data()
    labels = dataclasses.replace(sinkd, objective=1.0 * CrossEntropy())
    return {"labels": labels, "SinKD": sinkd}


def drawn(rows, grid, **settings):
    return Tuning(grid=grid, **settings).draw(rows)


def test_every_row_has_as_many_trials_as_the_one_with_the_fewest_settings(rows):
    trials = drawn(rows, {RATE: (1e-3, 3e-3), WEIGHT: (0.2, 0.8, 3)})
    assert trials.num == 2 and trials.there == {"labels": 2, "SinKD": 6}
    assert trials.settings["labels"] == [(f"{RATE}=0.001",), (f"{RATE}=0.003",)]
    everything = [*itertools.product(("0.001", "0.003"), ("0.2", "0.8", "3"))]
    ours = trials.settings["SinKD"]
    places = [
        everything.index((rate.partition("=")[2], weight.partition("=")[2]))
        for rate, weight in ours
    ]
    assert len(set(places)) == 2 and places == sorted(places)
    assert all(setting[0].startswith(RATE) for setting in ours)


def test_a_row_whose_settings_all_fit_has_all_in_order(rows):
    trials = drawn({"SinKD": rows["SinKD"]}, {RATE: ("1e-3", "3e-3"), WEIGHT: (1, 2)})
    assert trials.settings["SinKD"] == [
        (f"{RATE}=1e-3", f"{WEIGHT}=1"),
        (f"{RATE}=1e-3", f"{WEIGHT}=2"),
        (f"{RATE}=3e-3", f"{WEIGHT}=1"),
        (f"{RATE}=3e-3", f"{WEIGHT}=2"),
    ]


def test_the_draw_is_the_same_every_time_and_of_every_setting(rows):
    rates = tuple(round(1e-4 * 1.1**i, 8) for i in range(40))
    few = drawn(rows, {RATE: rates}, trials=3)
    assert few == drawn(rows, {RATE: rates}, trials=3)
    # The same values for all: none of the rows is luckier.
    assert few.settings["labels"] == few.settings["SinKD"]
    assert len(set(few.settings["labels"])) == few.num == 3
    assert few.settings["labels"] != [(f"{RATE}={rate}",) for rate in rates[:3]]
    # More than there are is all there are.
    assert drawn(rows, {RATE: rates}, trials=100).num == 40


@pytest.mark.slow
def test_large_grids_are_not_listed(rows):
    grid = {
        f"optimizer.{name}": tuple(0.001 * (i + 1) for i in range(100))
        for name in ("learning_rate", "warmup", "weight_decay", "b1")
    }
    assert drawn(rows, grid, trials=2).there["labels"] == 10**8


def test_a_setting_changes_the_row_and_what_it_is_taught_by(rows):
    tried = changed(rows["SinKD"], (f"{WEIGHT}=3", "data.widths=16"))
    assert tried.objective.terms[2].weight == 3
    (teacher,) = tried.teachers
    assert teacher.recipe is not None and teacher.recipe.data == tried.data
    with pytest.raises(UserError, match=f"{RATE}=fast: expected a finite number"):
        changed(rows["SinKD"], (f"{RATE}=fast",))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (
            {"optimizer.rate": (1, 2)},
            "the grid: optimizer.rate: no field 'rate' in optimizer.*learning_rate",
        ),
        ({"objective.sinkdd.weight": (1, 2)}, "did you mean sinkd?"),
        ({RATE: (1e-3, "x")}, f"{RATE}=x: expected a finite number"),
        ({RATE: (1e-3, "0.001")}, f"{RATE}=0.001 and {RATE}=0.001 are the same run"),
        ({RATE: (1, 2), "save_every": (5, 6)}, "save_every=5 and save_every=6 are the"),
        ({WEIGHT: (1, 2)}, "leaves row 'labels' one setting, so with an equal budget"),
        ({RATE: (1e-3,), WEIGHT: (1, 2)}, "leaves row 'labels' one setting"),
    ],
)
def test_grids_that_tune_nothing_or_something_else(rows, grid, message):
    with pytest.raises(UserError, match=message) as refused:
        drawn(rows, grid)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": {}}, "the grid has no fields"),
        ({"grid": {RATE: ()}}, f"gives {RATE} no values"),
        (
            {"grid": {RATE: "1e-3"}},
            f"gives {RATE} no values; expected some in brackets",
        ),
        ({"grid": {"seed": (1, 2)}}, "the grid has the seed"),
        ({"seeds": ()}, "at least one and all different"),
        ({"seeds": (100, 100)}, "at least one and all different"),
        ({"trials": 1}, "trials must be at least 2, or 0"),
        ({"trials": -2}, "trials must be at least 2, or 0"),
    ],
)
def test_what_no_tuning_can_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Tuning(**{"grid": {RATE: (1, 2)}} | settings)


def test_a_table_is_tuned_with_other_seeds_than_its_own(rows):
    tuning = Tuning(grid={RATE: (1, 2)}, seeds=(100, 1))
    with pytest.raises(ValueError, match="seeds 1 are of the table and of its tuning"):
        Table(rows=rows, baseline="labels", seeds=(0, 1), tuning=tuning)
    assert Table(rows=rows, baseline="labels", seeds=(0, 2), tuning=tuning).tuning


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        (f"{RATE}=[3e-4,1e-3]", {RATE: ("3e-4", "1e-3")}),
        (
            f" {RATE}=[3e-4, 1e-3]  {WEIGHT}=[ 3 ]\n",
            {RATE: ("3e-4", "1e-3"), WEIGHT: ("3",)},
        ),
    ],
)
def test_a_grid_as_it_is_typed(text, grid):
    assert grid_in(text) == grid


@pytest.mark.parametrize(
    "text",
    [
        "", " ", RATE, f"{RATE}=3e-4", f"{RATE}=[3e-4", f"{RATE}=3e-4,1e-3",
        f"[{RATE}=3e-4]", f"{RATE}=[1]{WEIGHT}=[2]", f"{RATE}=[[1]]", "=[1]",
        f"{RATE}[1]",
    ],
)  # fmt: skip
def test_a_grid_that_is_none(text):
    with pytest.raises(UserError, match=r"expected field=\[value,value\]") as refused:
        grid_in(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{RATE}=[]", "lacks a value between commas"),
        (f"{RATE}=[1,,2]", "lacks a value between commas"),
        (f"{RATE}=[1,2] {RATE}=[3]", f"{RATE} is there twice"),
    ],
)
def test_a_grid_with_a_slip(text, message):
    with pytest.raises(UserError, match=message):
        grid_in(text)
