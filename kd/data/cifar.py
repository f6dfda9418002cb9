"""Reads the binary versions of CIFAR-10 and -100: a label, then 32 x 32 pixels.

Of every image all red bytes come first, then the green and the blue ones, row by row.

Source: krizhevsky2009cifar.
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from kd.errors import UserError

_SIZE = 32
_RECORD = 1 + 3 * _SIZE * _SIZE


def parse(
    path: Path, content: bytes, *, skip: int = 0
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], UInt8[np.ndarray, "n"]]:
    """Images and labels of a file.

    Args:
        path: where the content comes from, for messages.
        content: of the whole file.
        skip: bytes before the label: 1 in CIFAR-100, whose records begin with the
            coarse class.

    Raises:
        UserError: it does not consist of whole records.
    """
    size = skip + _RECORD
    if not content or len(content) % size:
        raise UserError(
            f"{path}: {len(content):,} bytes; expected records of {size:,}, a label "
            "and 3 x 32 x 32 pixels"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)[:, skip:]
    images = records[:, 1:].reshape(-1, 3, _SIZE, _SIZE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0]
