"""The runs of a table: which there are, and how those that are missing are made."""

import pathlib
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kd import run
from kd.compare.table import Table
from kd.errors import Diverged, UserError
from kd.experiment import Experiment
from kd.report.quantities import duration
from kd.run_directory import Busy, read_json, write_json
from kd.train.signals import Interrupted

_FAILED = "failed.json"


class Cell(NamedTuple):
    """One row with one seed."""

    row: str
    seed: int
    experiment: Experiment
    directory: pathlib.Path

    @property
    def finished(self) -> bool:
        return (self.directory / "summary.json").exists()

    def summary(self) -> dict[str, Any]:
        """What the finished run says of itself.

        Raises:
            UserError: the file is damaged.
        """
        return read_json(self.directory / "summary.json")

    @property
    def failure(self) -> str:
        """Why it has no result and will have none; empty where it may have one."""
        path = self.directory / _FAILED
        return read_json(path).get("reason", "") if path.exists() else ""


def cells(table: Table, workspace: run.Workspace) -> list[Cell]:
    """All runs of a table, every row with the first seed, then with the next.

    A table that is stopped has then as many seeds of one row as of another. How often a
    run is evaluated is no part of what makes it the run it is, and all that the best
    evaluation rests on: the runs of the protocol "paper" have folders of their own.
    """
    found = []
    for seed in table.seeds:
        for row in table.rows:
            experiment = table.cell(row, seed)
            folder = run.folder_of(experiment, workspace)
            if table.protocol == "paper":
                every = f"every-{experiment.evaluate_every}"
                folder = folder.with_name(f"{folder.name}-{every}")
            found.append(Cell(row, seed, experiment, folder))
    return found


def make(
    wanted: list[Cell],
    workspace: run.Workspace,
    *,
    say: Callable[[str], Any],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Runs what is missing, one after the other.

    A cell at which another process works is left to it and looked at again later. One
    that diverges is recorded as such, since it would again; one that fails otherwise is
    told, and tried by the next call.

    Args:
        wanted: all cells of a table, in order.
        workspace: where; what its runs say is not shown.
        say: shows a line to the person who waits.
        clock: seconds from any moment on.

    Raises:
        kd.train.loop.Interrupted: a signal asked to stop; what is finished is kept.
    """
    missing = [cell for cell in wanted if not cell.finished and not cell.failure]
    there = sum(cell.finished for cell in wanted)
    failed = len(wanted) - len(missing) - there
    before = f", {failed} that diverged before" if failed else ""
    say(f"{len(wanted)} runs, {there} there{before}, {len(missing)} to make")
    begun, made, told_waiting = clock(), 0, False
    while missing:
        waiting = []
        for cell in missing:
            if cell.finished:
                continue
            try:
                seconds, outcome = _make(cell, workspace, clock)
            except Busy:
                waiting.append(cell)
                continue
            made += 1
            left = len(missing) - missing.index(cell) - 1 + len(waiting)
            each = (clock() - begun) / made
            rest = f"; about {duration(each * left)} left" if left else ""
            done = sum(cell.finished or bool(cell.failure) for cell in wanted)
            say(
                f"{done}/{len(wanted)} {cell.row}, seed {cell.seed}: {outcome} in "
                f"{duration(seconds)}{rest}"
            )
        if len(waiting) == len(missing):
            if not told_waiting:
                say(f"waiting for {len(waiting)} runs that other processes make")
            told_waiting = True
            time.sleep(1.0)
        missing = waiting


def _make(
    cell: Cell, workspace: run.Workspace, clock: Callable[[], float]
) -> tuple[float, str]:
    begun = clock()
    try:
        run.make(cell.experiment, workspace, directory=cell.directory)
    except (Busy, Interrupted):
        raise
    except Diverged as error:
        write_json(cell.directory / _FAILED, {"reason": str(error)})
        return clock() - begun, f"diverged ({error})"
    except UserError as error:
        return clock() - begun, f"failed ({error})"
    except Exception as error:
        # One cell's defect, such as no memory for it, costs no other its result.
        last = traceback.format_exception_only(error)[-1].strip()
        return clock() - begun, f"failed ({last:.200})"
    summary = cell.summary()
    main = summary["task"]["main"]
    return clock() - begun, f"{main} {summary['student'][main]:.4f}"


def by_row(wanted: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Rows in order, each with its cells."""
    rows: dict[str, list[Cell]] = {}
    for cell in wanted:
        rows.setdefault(cell.row, []).append(cell)
    return rows
