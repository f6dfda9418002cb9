"""Reads files of data sets, plain or compressed."""

import gzip
import lzma
import zlib
from collections.abc import Iterable
from pathlib import Path

from kd.errors import UserError

_OPEN = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def read(directory: Path, folder: str, file_name: str) -> tuple[Path, bytes]:
    """Path and content of `directory/folder/file_name`, or of its .gz or .xz.

    Args:
        directory: of all data sets, DATA_DIR.
        folder: of the data set in question.
        file_name: without the ending of a compressed file.

    Raises:
        UserError: there is no such file, or it is damaged or cannot be read.
    """
    path = directory / folder / file_name
    for suffix, opener in _OPEN.items():
        candidate = path.with_name(file_name + suffix)
        try:
            with opener(candidate, "rb") as stream:
                return candidate, stream.read()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
            raise UserError(f"{candidate}: damaged {suffix} file ({error})") from error
        except OSError as error:
            raise UserError(f"{candidate}: {error.strerror or error}") from error
    if not directory.is_dir():
        raise UserError(f"DATA_DIR {directory} is not a folder")
    if not path.parent.is_dir():
        present = sorted(
            entry.name
            for entry in directory.iterdir()
            if entry.is_dir() and not entry.name.startswith(".")
        )
        shown = ", ".join(present[:12]) + (", …" if len(present) > 12 else "")
        raise UserError(
            f"no {folder} folder in {directory}; expected {path} (.gz, .xz);"
            f" folders there: {shown or 'none'}"
        )
    raise UserError(f"{path}: no such file, nor with .gz or .xz")


def quoted(words: Iterable[str]) -> str:
    """The words, escaped and short enough for one line of a terminal."""
    line = ", ".join(map(repr, words))
    return line if len(line) <= 80 else line[:80] + "…"


def lines_of(path: Path, content: bytes) -> list[str]:
    """The lines of a UTF-8 text, without their ends; a last empty one is dropped.

    Lines end at LF or CR LF only: other separators are text.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 ({error.reason})") from error
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
