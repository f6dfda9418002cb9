"""`metrics.jsonl`: one JSON object a line, each with its "step" and "split"."""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from kd import hosts
from kd.atomic import atomic_write
from kd.errors import UserError


class MetricsLog:
    """Appends rows; forgets those beyond the step at which a run resumes.

    Call `truncate` before the first `write`. Every row can be read as soon as it is
    written. With TensorBoard's writer at hand (extra `tensorboard`) the same numbers
    also go to event files in the folder `tensorboard` beside it.

    Of several processes (`kd.hosts`) the first one writes, and the others know what it
    found.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._file = _open(path)
        self._board = None
        self._evaluated: set[int] = set()

    def write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        if self._board is not None:
            for name, value in row.items():
                if name not in ("step", "split"):
                    self._board.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def truncate(self, *, after: int) -> list[str]:
        """Drops the rows of steps later than `after`, and lines that are damaged.

        Returns:
            A line to show where something was damaged.
        """
        problems, evaluated = hosts.of_first(lambda: self._truncate(after))
        self._evaluated = {*evaluated}
        return problems

    def _truncate(self, after: int) -> tuple[list[str], list[int]]:
        self.sync()
        kept, damaged = [], []
        for number, row in _rows(self.path):
            if row is None:
                damaged.append(number)
            elif row["step"] <= after:
                kept.append(row)
        self._file.close()
        with atomic_write(self.path) as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
        self._file = _open(self.path)
        evaluated = [row["step"] for row in kept if row["split"] == "dev"]
        self._board = _tensorboard(self.path.parent / "tensorboard", after + 1)
        if not damaged:
            return [], evaluated
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        return [f"{self.path}:{damaged[0]}{more}: damaged, left out"], evaluated

    def is_empty(self) -> bool:
        """Whether there is no row."""
        return hosts.of_first(lambda: not self.path.stat().st_size)

    def has_evaluation(self, step: int) -> bool:
        """Whether there was a row on dev of this step when the run resumed."""
        return step in self._evaluated

    def sync(self) -> None:
        """Makes sure that what was written survives a crash."""
        self._file.flush()
        if hosts.is_first():
            os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        self.sync()
        self._file.close()
        if self._board is not None:
            self._board.close()


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """All rows; a last line cut short by a crash is left out.

    Raises:
        UserError: another line is no row.
    """
    rows = []
    for number, row in _rows(path):
        if row is None:
            raise UserError(
                f'{path}:{number}: expected a JSON object of numbers with "step" and '
                '"split"; without this line the others can be read'
            )
        rows.append(row)
    return rows


def _rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Number and row of every line; None for a row that is damaged."""
    *lines, last = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, _row(line)
    # Only a crash leaves out the end of the line, and mostly more than that.
    if last and (row := _row(last)) is not None:
        yield len(lines) + 1, row


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    numbers = {name: value for name, value in row.items() if name != "split"}
    whole = isinstance(row.get("split"), str) and type(row.get("step")) is int
    plain = all(type(x) in (int, float, type(None)) for x in numbers.values())
    return row if whole and plain else None


def _open(path: pathlib.Path):
    path = path if hosts.is_first() else pathlib.Path(os.devnull)
    return open(path, "a", encoding="utf-8", buffering=1)  # by lines


def _tensorboard(directory: pathlib.Path, purge_step: int):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=purge_step)
