"""Files in the format GGUF, that of llama.cpp: metadata and tensors, dequantized.

Read with the package `gguf`, which is an extra of its own.
"""

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from kd.errors import UserError
from kd.models import tensors as tensor_files


def find(name_or_directory: str | os.PathLike[str]) -> Path | None:
    """The GGUF file that is meant: a path to one, or a directory with one in it.

    A directory with a `config.json` is another kind of checkpoint. Names on the hub
    mean none.

    Raises:
        UserError: the directory has several, or cannot be read.
    """
    try:
        path = Path(name_or_directory).expanduser()
        if path.suffix == ".gguf" and path.is_file():
            return path
        if not path.is_dir() or (path / "config.json").exists():
            return None
        found = sorted(file for file in path.glob("*.gguf") if file.is_file())
    except (OSError, RuntimeError) as error:  # RuntimeError: a home of nobody.
        raise UserError(f"{name_or_directory} cannot be read: {error}") from error
    if len(found) > 1:
        raise UserError(
            f"{path} has {', '.join(file.name for file in found)}; give one of them"
        )
    return found[0] if found else None


def read_metadata(path: Path) -> dict[str, Any]:
    """What a file says of its tensors: numbers, strings, and lists of these.

    Raises:
        UserError: the file cannot be read, or the package is not there.
    """
    try:
        return {
            name: _plain(field.contents())
            for name, field in _reader(path).fields.items()
        }
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, [out, in] of a matrix.

    Raises:
        UserError: the file cannot be read, or the package is not there.
    """
    return {
        tensor.name: tuple(int(size) for size in reversed(tensor.shape))
        for tensor in _reader(path).tensors
    }


def read_tensors(path: Path, only: str | None = None) -> dict[str, np.ndarray]:
    """The weights of a file in float32, [out, in] where they are matrices.

    Args:
        path: of the file.
        only: the name of the one to read, if it is there; all if None.

    Raises:
        UserError: the file cannot be read, the package is not there, a tensor is of a
            type that it does not know, or a number is not finite.
    """
    tensors = {}
    for tensor in _reader(path).tensors:
        if only not in (None, tensor.name):
            continue
        kind = tensor.tensor_type
        try:
            values = _gguf(path).quants.dequantize(tensor.data, kind)
        except NotImplementedError as error:
            raise UserError(
                f"{path}: {tensor_files.shown(tensor.name)} is of the type {kind.name},"
                " which the package gguf does not dequantize"
            ) from error
        except _DAMAGE as error:
            raise _damaged(path, error) from error
        if not np.isfinite(values).all():
            raise UserError(
                f"{path}: {tensor_files.shown(tensor.name)} has numbers that are not "
                "finite"
            )
        tensors[tensor.name] = values
    return tensors


# What the package raises where a file is not as it should be.
_DAMAGE = (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError)


def _reader(path: Path) -> Any:
    try:
        state = path.stat()
        return _opened(path, state.st_mtime_ns, state.st_size)
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


@functools.lru_cache(maxsize=1)
def _opened(path: Path, changed: int, size: int) -> Any:
    """Kept, since the package takes seconds to go through a vocabulary."""
    del changed, size  # Of another file under the same name.
    return _gguf(path).GGUFReader(path)


def _damaged(path: Path, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"{path} is not a whole GGUF file: {reason}")


def _gguf(path: Path) -> Any:
    try:
        import gguf
    except ImportError as error:
        raise UserError(
            f"{path} is read with the package gguf, which is not installed: "
            "pip install gguf"
        ) from error
    return gguf


def _plain(value: Any) -> Any:
    """A float32 is 9.999999747378752e-06 to Python where 1e-05 was meant."""
    return float(str(np.float32(value))) if type(value) is float else value
