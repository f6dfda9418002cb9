"""Weights from safetensors files, every file checked before it is believed."""

import contextlib
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 once this is imported.
import numpy as np
import safetensors

from kd.errors import UserError

_FLOATS = ("F16", "BF16", "F32", "F64")
"""What safetensors calls the types that weights come in. Anything else is a code that
only its quantiser can turn into weights."""

# Buffers that old versions of transformers saved beside the weights: 0, 1, 2, …, the
# causal mask of GPT-2 and its minus infinity, rotary frequencies; and a table of T5
# that nothing reads.
_BUFFERS = (
    *("embeddings.position_ids", "embeddings.token_type_ids"),
    *(".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"),
    ".EncDecAttention.relative_attention_bias.weight",
)


def read(path: Path) -> dict[str, np.ndarray]:
    """The weights of a safetensors file, in float32.

    Buffers that checkpoints are known to carry are left out.

    Raises:
        UserError: the file cannot be read or is none, a tensor is not of a float type
            of 16, 32 or 64 bits, or a number in it is not finite in float32.
    """
    with _opened(path) as file:
        # Dtypes first: the library knows some that NumPy does not.
        names = [name for name in file.keys() if not name.endswith(_BUFFERS)]  # noqa: SIM118
        for name in names:
            if (dtype := file.get_slice(name).get_dtype()) not in _FLOATS:
                raise UserError(
                    f"{path}: {shown(name)} is of dtype {dtype}; weights must be "
                    f"one of {', '.join(_FLOATS)}"
                )
        return {name: _finite(path, name, file.get_tensor(name)) for name in names}


def names(path: Path) -> list[str]:
    """What the tensors of a safetensors file are called.

    Raises:
        UserError: the file cannot be read or is none.
    """
    with _opened(path) as file:
        return list(file.keys())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path} is not a safetensors file: {_first_line(error)}"
        ) from error
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{path} cannot be read: {_first_line(error)}") from error


def shown(name: str) -> str:
    """A name from a file, as it may stand in an error of one line."""
    return name if name.isprintable() and len(name) <= 200 else reprlib.repr(name)


def _finite(path: Path, name: str, tensor: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        values = tensor.astype(np.float32, copy=False)
    finite = np.isfinite(values)
    if not finite.all():
        raise UserError(
            f"{path}: of {values.size:,} values of {shown(name)}, "
            f"{values.size - np.count_nonzero(finite):,} are NaN or infinite in "
            "float32; weights must be finite"
        )
    return values


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
