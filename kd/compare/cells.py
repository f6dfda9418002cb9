"""The runs of a table: which there are, and how those that are missing are made."""

import pathlib
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kd import run, run_directory
from kd.compare.table import Table
from kd.errors import Diverged, UserError
from kd.experiment import Experiment
from kd.report.quantities import duration
from kd.run_directory import Busy, read_json
from kd.train.signals import Interrupted


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
        return run_directory.failure(self.directory)

    @property
    def over(self) -> bool:
        """Whether there is nothing left to make."""
        return run_directory.is_over(self.directory)


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
    together: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Runs what is missing, one after the other or the seeds of a row together.

    A cell at which another process works is left to it and looked at again later. One
    that diverges is recorded as such, since it would again; one that fails otherwise is
    told, and tried by the next call.

    Args:
        wanted: all cells of a table, in order.
        workspace: where; what its runs say is not shown.
        say: shows a line to the person who waits.
        together: whether the seeds of a row train in one program, but for those that
            were begun alone.
        clock: seconds from any moment on.

    Raises:
        kd.train.loop.Interrupted: a signal asked to stop; what is finished is kept.
    """
    missing = [cell for cell in wanted if not cell.over]
    there = sum(cell.finished for cell in wanted)
    failed = len(wanted) - len(missing) - there
    before = f", {failed} that diverged before" if failed else ""
    say(f"{len(wanted)} runs, {there} there{before}, {len(missing)} to make")
    begun, made, told_waiting = clock(), 0, False
    while missing:
        waiting: list[Cell] = []
        parts = _parts(missing, together)
        for n, part in enumerate(parts, start=1):
            part = [cell for cell in part if not cell.over]
            if not part:
                continue
            try:
                seconds, outcome, left = _make(part, workspace, clock)
            except Busy:
                waiting += part
                continue
            waiting += left
            made += len(part) - len(left)
            num_left = sum(map(len, parts[n:])) + len(waiting)
            each = (clock() - begun) / max(made, 1)
            rest = f"; about {duration(each * num_left)} left" if num_left else ""
            done = sum(cell.over for cell in wanted)
            said = [cell.seed for cell in part if cell not in left]
            say(
                f"{done}/{len(wanted)} {part[0].row}, "
                f"{f'seed {said[0]}' if len(said) == 1 else f'{len(said)} seeds'}: "
                f"{outcome} in {duration(seconds)}{rest}"
            )
        if len(waiting) == len(missing):
            if not told_waiting:
                say(f"waiting for {len(waiting)} runs that other processes make")
            told_waiting = True
            time.sleep(1.0)
        missing = waiting


def _parts(missing: Sequence[Cell], together: bool) -> list[list[Cell]]:
    """What is made at a time: a cell, or those of a row that can train together.

    That is, that were not begun alone, and whose task allows it.
    """
    if not together:
        return [[cell] for cell in missing]
    parts = []
    for row in by_row(missing).values():
        alone = [
            cell
            for cell in row
            if run_directory.has_checkpoint(cell.directory)
            or not cell.experiment.data.trains_together
        ]
        parts += [[cell] for cell in alone]
        parts.append([cell for cell in row if cell not in alone])
    return [part for part in parts if part]


def _make(
    part: list[Cell], workspace: run.Workspace, clock: Callable[[], float]
) -> tuple[float, str, list[Cell]]:
    """Seconds that it took, what came of it, and what of it is left for later."""
    begun = clock()
    try:
        if len(part) == 1:
            run.make(part[0].experiment, workspace, directory=part[0].directory)
        else:
            run.make_together(
                [cell.experiment for cell in part],
                workspace,
                directories=[cell.directory for cell in part],
            )
    except (Busy, Interrupted):
        raise
    except Diverged as error:
        run_directory.write_failure(part[0].directory, str(error))
        return clock() - begun, f"diverged ({error})", []
    except UserError as error:
        return clock() - begun, f"failed ({error})", []
    except Exception as error:
        # One cell's defect, such as no memory for it, costs no other its result.
        last = traceback.format_exception_only(error)[-1].strip()
        return clock() - begun, f"failed ({last:.200})", []
    left = [cell for cell in part if not cell.over]
    return clock() - begun, _outcome([cell for cell in part if cell.over]), left


def _outcome(made: list[Cell]) -> str:
    """The score of a run, or the mean of those that trained together."""
    summaries = [cell.summary() for cell in made if cell.finished]
    told = [
        f"seed {cell.seed} diverged ({cell.failure})" for cell in made if cell.failure
    ]
    if summaries:
        main = summaries[0]["task"]["main"]
        mean = np.mean([summary["student"][main] for summary in summaries])
        several = f", the mean of {len(summaries)} seeds together"
        told.insert(0, f"{main} {mean:.4f}{several if len(summaries) > 1 else ''}")
    return "; ".join(told)


def by_row(wanted: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Rows in order, each with its cells."""
    rows: dict[str, list[Cell]] = {}
    for cell in wanted:
        rows.setdefault(cell.row, []).append(cell)
    return rows
