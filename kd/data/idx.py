"""Reads idx files, the format of MNIST and its successors.

Two zero bytes, a byte for the type of the elements, one for the number of axes, the
length of each axis as four bytes, and then the elements; all big-endian. The published
sets hold bytes only.

Source: lecun1998mnist.
"""

import math
import struct
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from kd.errors import UserError

_UNSIGNED_BYTE = 0x08


def parse(path: Path, content: bytes, *, num_axes: int) -> UInt8[np.ndarray, "..."]:
    """The array in a file of unsigned bytes.

    Args:
        path: where the content comes from, for messages.
        content: of the whole file.
        num_axes: 1 for labels, 3 for images.

    Raises:
        UserError: it is no such file, or has more or fewer bytes than its header says.
    """
    expected = bytes((0, 0, _UNSIGNED_BYTE, num_axes))
    if content[:4] != expected:
        raise UserError(
            f"{path}: no idx file of bytes with {num_axes} axes: it begins with "
            f"{content[:4].hex(' ') or 'nothing'}, expected {expected.hex(' ')}"
        )
    start = 4 + 4 * num_axes
    if len(content) < start:
        raise UserError(f"{path}: ends within its header")
    shape = struct.unpack(f">{num_axes}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise UserError(
            f"{path}: {len(content) - start:,} bytes after the header; expected "
            f"{' x '.join(map(str, shape))} = {math.prod(shape):,}"
        )
    if not math.prod(shape):
        raise UserError(f"{path}: no examples")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
