"""Reads the binary version of CIFAR-10: a byte for the class, then 32 x 32 pixels.

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
    path: Path, content: bytes
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], UInt8[np.ndarray, "n"]]:
    """Images and labels of a file.

    Args:
        path: where the content comes from, for messages.
        content: of the whole file.

    Raises:
        UserError: it does not consist of whole records.
    """
    if not content or len(content) % _RECORD:
        raise UserError(
            f"{path}: {len(content):,} bytes; expected records of {_RECORD:,}, a label "
            "and 3 x 32 x 32 pixels"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    images = records[:, 1:].reshape(-1, 3, _SIZE, _SIZE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0]
