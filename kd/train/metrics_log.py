"""`metrics.jsonl`: one JSON object a line, each with its "step" and "split"."""

import json
import os
import pathlib
from typing import Any

from kd.atomic import atomic_write


class MetricsLog:
    """Appends rows; forgets those beyond the step at which a run resumes.

    Call `truncate` before the first `write`. With TensorBoard's writer at hand (extra
    `tensorboard`) the same numbers also go to event files in the folder `tensorboard`
    beside it.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._file = open(path, "a", encoding="utf-8")
        self._board = None

    def write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        if self._board is not None:
            for name, value in row.items():
                if name not in ("step", "split"):
                    self._board.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def truncate(self, *, after: int) -> None:
        """Drops the rows of steps later than `after`."""
        self.sync()
        kept = [row for row in read(self.path) if row["step"] <= after]
        self._file.close()
        with atomic_write(self.path) as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
        self._file = open(self.path, "a", encoding="utf-8")
        self._board = _tensorboard(self.path.parent / "tensorboard", after + 1)

    def sync(self) -> None:
        """Makes sure that what was written survives a crash."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        self.sync()
        self._file.close()
        if self._board is not None:
            self._board.close()


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """All rows; a last line cut short by a crash is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _tensorboard(directory: pathlib.Path, purge_step: int):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=purge_step)
