"""The settings that a sweep selected: chosen from its runs, and taken by a table."""

import dataclasses
import json
import operator
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from kd import config
from kd.compare.cells import Cell, by_row
from kd.compare.table import Table
from kd.compare.tuning import Setting, Trials, changed
from kd.errors import UserError
from kd.evaluate.metric import Metric
from kd.experiment import Experiment

KeyOf = Callable[[Experiment], str]
"""A name for everything that determines a run, its data included."""


def table_of(trials: Trials, table: Table) -> Table:
    """All trials as rows of a table, so that their runs are made like any others.

    Raises:
        UserError: a trial changes what all rows of the table must share.
    """
    assert table.tuning is not None
    rows = {
        name_of(row, setting): changed(table.rows[row], setting)
        for row, settings in trials.settings.items()
        for setting in settings
    }
    try:
        return dataclasses.replace(
            table, rows=rows, baseline=next(iter(rows)), seeds=table.tuning.seeds,
            claims=(), published={}, tuning=None, protocol="last",
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"the grid: {error}") from error


def name_of(row: str, setting: Setting) -> str:
    """Of a trial, among the rows of all."""
    return f"{row}, {' '.join(setting)}"


def choose(
    table: Table, trials: Trials, wanted: Sequence[Cell], key_of: KeyOf
) -> dict[str, Any]:
    """Of every row the setting with the best mean over the seeds of tuning.

    By the last checkpoint, and the task's main metric on dev. A trial of which a seed
    diverged loses to all others; of two that are alike, the first in the grid wins.

    Args:
        table: with the rows before tuning.
        trials: that were made.
        wanted: the cells of `table_of(trials, table)`, each finished or diverged.
        key_of: names a row, so that a table finds out whether it is still the same.
    """
    assert table.tuning is not None
    metric, made = table.target.main, by_row(wanted)
    rows = []
    for row, settings in trials.settings.items():
        tried = [_trial(s, made[name_of(row, s)]) for s in settings]
        best = _best(tried, metric)
        rows.append(
            {
                "name": row,
                "key": key_of(table.rows[row]),
                "there": trials.there[row],
                "selected": best and best["setting"],
                "mean": best and best["mean"],
                "trials": tried,
                "experiment": config.identity(config.to_json(table.rows[row])),
            }
        )
    return {
        "metric": metric.described(),
        "grid": {k: [str(v) for v in vs] for k, vs in table.tuning.grid.items()},
        "seeds": [*table.tuning.seeds],
        "trials": trials.num,
        "rows": rows,
    }


def _trial(setting: Setting, cells: Sequence[Cell]) -> dict[str, Any]:
    seeds: list[dict[str, Any]] = []
    for cell in cells:
        entry = {"seed": cell.seed, "key": cell.directory.name}
        if cell.finished:
            # On dev, whatever the final networks are scored on.
            entry["score"] = cell.summary()["student"]["dev"]
        else:
            entry["failed"] = cell.failure
        seeds.append(entry)
    scores = [seed["score"] for seed in seeds if seed.get("score") is not None]
    mean = sum(scores) / len(scores) if len(scores) == len(seeds) else None
    return {"setting": [*setting], "mean": mean, "seeds": seeds}


def _best(tried: Sequence[dict[str, Any]], metric: Metric) -> dict[str, Any] | None:
    sign = 1 if metric.higher_is_better else -1
    whole = [trial for trial in tried if trial["mean"] is not None]
    return max(whole, key=lambda trial: sign * trial["mean"], default=None)


def what(record: Any) -> Any:
    """Which sweep it is, whatever came out."""
    rows = [(row["name"], row["key"]) for row in record["rows"]]
    return record["grid"], record["seeds"], record["trials"], rows


_FIELDS = ("metric", "grid", "seeds", "trials", "rows")
_FIELDS_OF_ROWS = ("name", "key", "there", "selected", "mean", "trials", "experiment")


def read(path: pathlib.Path) -> dict[str, Any] | None:
    """What `make sweep` wrote; None where it has not been.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        operator.itemgetter(*_FIELDS)(record)
        for row in record["rows"]:
            operator.itemgetter(*_FIELDS_OF_ROWS)(row)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); remove it and make "
            "sweep again, or TUNED=no leaves it unread"
        ) from error
    return record


def applied(table: Table, record: Any, path: pathlib.Path, key_of: KeyOf) -> Table:
    """The table with the selected settings.

    Args:
        table: with the rows before tuning; some of the sweep's, or all.
        record: as `read` gives it.
        path: of the record, for what is said.
        key_of: names a row as `choose` did.

    Raises:
        UserError: a row is not the one that was tuned, or a seed was tuned with.
    """
    otherwise = "make sweep again, or TUNED=no runs the settings of each experiment"
    if both := {*table.seeds} & {*record["seeds"]}:
        raise UserError(
            f"{path}: settings were selected with seeds "
            f"{', '.join(map(str, sorted(both)))}, which the table would show; choose "
            "other SEEDS"
        )
    tuned = {row["name"]: row for row in record["rows"]}
    rows = {}
    for name, row in table.rows.items():
        if name not in tuned:
            raise UserError(f"{path} has no row {name!r}; {otherwise}")
        found = tuned[name]
        if found["key"] != key_of(row):
            now = config.identity(config.to_json(row))
            differ = config.differences(now, found["experiment"])
            raise UserError(
                f"{path} is of another row {name!r} "
                f"({differ[0] if differ else 'its data or networks'}); {otherwise}"
            )
        rows[name] = changed(row, tuple(found["selected"] or ()))
    try:
        return dataclasses.replace(table, rows=rows)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
