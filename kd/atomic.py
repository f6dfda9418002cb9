"""Files that are, at any time, either the old or the new one."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def atomic_write(path: pathlib.Path, mode: str = "w") -> Iterator[IO]:
    """Opens a file that takes its name only when it is written whole.

    Until then it has a name of its own, beginning with a dot; if writing fails it is
    removed and what was there before stays.

    Args:
        path: of the file.
        mode: "w" for text in UTF-8, "wb" for bytes.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
