"""Reads images from a tar archive with a folder for each class."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from kd.errors import UserError


def parse(
    path: Path, content: bytes, part: str, labels: Sequence[str]
) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, "n"]]:
    """Images and classes of a split, in the order of their names.

    Args:
        path: where the content comes from, for messages.
        content: of the archive; it is read in memory, nothing is unpacked.
        part: of the archive: files are `part/<class>/<name>.jpg`.
        labels: names of the classes.

    Raises:
        UserError: it is no such archive, an image is damaged, or sizes differ.
    """
    from PIL import Image, UnidentifiedImageError  # Only this layout needs it.

    images, classes = [], []
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            members = [m for m in archive.getmembers() if m.isfile()]
            for member in sorted(members, key=lambda m: m.name):
                folder, _, rest = member.name.removeprefix("./").partition("/")
                label, _, name = rest.partition("/")
                if folder != part or not name.endswith((".jpg", ".jpeg")):
                    continue
                if label not in labels:
                    raise UserError(f"{path}: {member.name} is of no class of the task")
                file = archive.extractfile(member)
                assert file is not None
                try:
                    with Image.open(file) as image:
                        images.append(np.asarray(image.convert("RGB")))
                except (UnidentifiedImageError, OSError) as error:
                    raise UserError(f"{path}: {member.name} is no image") from error
                classes.append(labels.index(label))
    except (tarfile.TarError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a tar archive ({reason})") from error
    if not images:
        raise UserError(f"{path}: no images; expected {part}/<class>/<name>.jpg")
    if len({image.shape for image in images}) > 1:
        raise UserError(f"{path}: images of {part} are of different sizes")
    return np.stack(images), np.array(classes, np.int32)
