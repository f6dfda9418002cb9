"""Arrays in a folder, written row by row while they are computed.

manifest.json  what they are: of which teacher, data and settings, shapes and dtypes;
               and how many rows are done, in the order in which they are computed
NAME.bin       each array, [rows, ...], in C order and the machine's byte order

Rows count as done when they lie on the disk, so that what was killed goes on from
there. Whoever reads maps the files into memory; whoever writes holds a lock.
"""

import contextlib
import fcntl
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped

from kd.atomic import atomic_write
from kd.errors import UserError

FORMAT = 1
_MANIFEST = "manifest.json"
_CHUNK = 2**26
"""Bytes after which what was written counts as done: lost at most by a kill."""


class Found(NamedTuple):
    """What lies in a folder."""

    rows_done: int = 0
    measured: dict[str, Any] | None = None
    """What was found of them in the end; None while they are not whole."""
    differences: Sequence[str] = ()
    """From what should lie there; then nothing of it is of use."""


def look(folder: pathlib.Path, description: Mapping[str, Any]) -> Found:
    """What lies in a folder, beside what should.

    Args:
        folder: where.
        description: of what should, see `described`.
    """
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        done, measured = manifest["rows_done"], manifest["measured"]
        theirs = manifest["description"]
        if not isinstance(theirs, dict) or not isinstance(done, int):
            raise TypeError
    except FileNotFoundError:
        return Found()
    except (ValueError, KeyError, TypeError, OSError):
        return Found(differences=(f"{_MANIFEST} is damaged",))
    wrong = [*_differences(json.loads(json.dumps(description)), theirs)]
    if not wrong:
        if not 0 <= done <= num_rows(description):
            wrong.append(f"{_MANIFEST} is damaged")
        for name, (shape, dtype) in _arrays(description).items():
            expected = math.prod(shape) * dtype.itemsize
            file = folder / f"{name}.bin"
            size = file.stat().st_size if file.exists() else 0
            if size != expected:
                wrong.append(f"{file.name} has {size:,} bytes, not {expected:,}")
    if wrong:
        return Found(differences=tuple(wrong))
    return Found(done, measured)


def described(
    settings: Mapping[str, Any], arrays: Mapping[str, Shaped[Any, "rows ..."]]
) -> dict[str, Any]:
    """What a manifest says of arrays.

    Args:
        settings: whatever determines them, as JSON.
        arrays: or their shapes and dtypes alone, by name.
    """
    return {
        "format": FORMAT,
        **settings,
        "arrays": {
            name: {"shape": [*x.shape], "dtype": jnp.dtype(x.dtype).name}
            for name, x in arrays.items()
        },
    }


def num_rows(description: Mapping[str, Any]) -> int:
    """Of every array."""
    return next(shape for shape, _ in _arrays(description).values())[0]


def num_bytes(description: Mapping[str, Any]) -> int:
    """Of all arrays."""
    return sum(
        math.prod(shape) * dtype.itemsize
        for shape, dtype in _arrays(description).values()
    )


def check_space(folder: pathlib.Path, needed: int, what: str) -> None:
    """Raises UserError where the disk has less room than that.

    Args:
        folder: that will be written to.
        needed: bytes.
        what: for, in words.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"{what} take {size_of(needed)}, and the disk of {folder} has "
            f"{size_of(free)} left; make room, keep less (a smaller keep.k, or "
            "keep=hidden), or set answers=live or another folder with RUNS="
        )


def begin(folder: pathlib.Path, description: Mapping[str, Any]) -> None:
    """Empties the folder, and puts files of zeros and a manifest there."""
    folder.mkdir(parents=True, exist_ok=True)
    # First, so that nobody takes new files for old ones.
    (folder / _MANIFEST).unlink(missing_ok=True)
    for file in folder.glob("*.bin"):
        file.unlink()  # Whoever reads it goes on reading what it was.
    for name, (shape, dtype) in _arrays(description).items():
        with open(folder / f"{name}.bin", "wb") as file:
            file.truncate(math.prod(shape) * dtype.itemsize)
    note(folder, description, 0)


def note(
    folder: pathlib.Path,
    description: Mapping[str, Any],
    rows_done: int,
    measured: dict[str, Any] | None = None,
) -> None:
    """Writes the manifest."""
    manifest = {
        "description": description, "rows_done": rows_done, "measured": measured,
    }  # fmt: skip
    with atomic_write(folder / _MANIFEST) as file:
        file.write(json.dumps(manifest, indent=2, allow_nan=False) + "\n")


class Writer:
    """Writes rows of all arrays, and notes what is done now and then."""

    def __init__(self, folder: pathlib.Path, description: Mapping[str, Any], done: int):
        self._folder, self._description, self._done = folder, description, done
        self._since = 0
        self._arrays = _arrays(description)
        self._files = {
            name: open(folder / f"{name}.bin", "r+b") for name in self._arrays
        }

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        for file in self._files.values():
            # A full disk has been told already.
            with contextlib.suppress(OSError):
                file.close()

    def write(
        self,
        places: Int[np.ndarray, "b"],
        arrays: Mapping[str, Shaped[np.ndarray, "b ..."]],
    ) -> None:
        """Puts rows into their places; those narrower than the rest end in zeros.

        Args:
            places: of the rows, increasing.
            arrays: the rows of each.
        """
        starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
        runs = [*zip(starts, [*starts[1:], len(places)], strict=True)]
        for name, (shape, dtype) in self._arrays.items():
            whole = np.zeros((len(places), *shape[1:]), dtype)
            given = np.asarray(arrays[name])
            whole[tuple(map(slice, given.shape))] = given
            size = math.prod(shape[1:]) * dtype.itemsize
            for first, end in runs:
                self._files[name].seek(int(places[first]) * size)
                self._files[name].write(whole[first:end].tobytes())
            self._since += whole.nbytes
        self._done += len(places)
        if self._since >= _CHUNK:
            self.commit()

    def commit(self) -> None:
        """Notes as done what was written so far."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        note(self._folder, self._description, self._done)
        self._since = 0


def read(
    folder: pathlib.Path, description: Mapping[str, Any]
) -> dict[str, Shaped[np.ndarray, "rows ..."]]:
    """The arrays, mapped into memory."""
    return {
        name: np.memmap(folder / f"{name}.bin", dtype, "r", shape=shape)
        for name, (shape, dtype) in _arrays(description).items()
    }


@contextlib.contextmanager
def alone(folder: pathlib.Path, on_wait: Callable[[], Any]) -> Iterator[None]:
    """One process at a time; others wait, and are told so by `on_wait`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def size_of(num: float) -> str:
    """Bytes in words, such as "1.2 GB"."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if num < 1000 or unit == "TB":
            break
        num /= 1000
    return f"{num:,.0f} {unit}" if unit == "bytes" else f"{num:,.1f} {unit}"


def _arrays(
    description: Mapping[str, Any],
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    return {
        name: (tuple(one["shape"]), jnp.dtype(one["dtype"]))
        for name, one in description["arrays"].items()
    }


def _differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where two JSON trees differ, one "path: theirs, not ours" each."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(ours.keys() | theirs.keys()):
            yield from _differences(
                ours.get(name), theirs.get(name), f"{path}.{name}".lstrip(".")
            )
    elif ours != theirs:
        yield f"{path} {_short(theirs)}, not {_short(ours)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 64 else f"{text[:16]}…"
