"""The files of a checkpoint: a directory, or a name on the hub.

It has `config.json` and `model.safetensors`. Pickled weights (`pytorch_model.bin`) are
never opened.
"""

import functools
import hashlib
import json
import os
import reprlib
from pathlib import Path, PureWindowsPath
from typing import Any

import huggingface_hub
import huggingface_hub.errors

from kd.errors import UserError

_CONTENT = (".safetensors", ".gguf", ".json", ".txt")
"""Endings of the files that make a checkpoint what it is."""


def find_file(name_or_directory: str | os.PathLike[str], filename: str) -> Path | None:
    """Locates one file of a checkpoint, downloading it from the hub if need be.

    Args:
        name_or_directory: an existing directory, or else a name on the hub such as
            `bert-base-uncased` or `organisation/model`.
        filename: for example `vocab.txt`.

    Returns:
        Where the file lies, or None if the checkpoint has no such file.

    Raises:
        UserError: no such directory, no such name, or the hub cannot be reached.
    """
    try:
        directory = Path(name_or_directory).expanduser()
        if directory.is_dir():
            path = directory / filename
            return path if path.is_file() else None
    except (OSError, RuntimeError) as error:  # RuntimeError: a home of nobody.
        raise UserError(f"{name_or_directory} cannot be read: {error}") from error
    name = os.fspath(name_or_directory)
    try:
        return Path(huggingface_hub.hf_hub_download(name, filename))
    except huggingface_hub.errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"{name}: no such directory, and {filename} cannot be downloaded from the "
            "hub (no network?); give a directory that has it"
        ) from error
    except huggingface_hub.errors.EntryNotFoundError:
        return None
    except (
        huggingface_hub.errors.HFValidationError,
        huggingface_hub.errors.RepositoryNotFoundError,
    ) as error:
        raise UserError(
            f"{name}: no such directory, and no such model on the hub (or no access)"
        ) from error
    except (huggingface_hub.errors.HfHubHTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{name}: {filename} cannot be downloaded: {reason}") from error


def find_weights(name_or_directory: str | os.PathLike[str]) -> list[Path]:
    """`model.safetensors`, or the shards that its index names.

    The former goes first, as in transformers: `save_pretrained` may have written it
    beside shards that were there before.

    Raises:
        UserError: there are none, or they cannot be downloaded.
    """
    if path := find_file(name_or_directory, "model.safetensors"):
        return [path]
    filenames = ["model.safetensors"]
    if index := find_file(name_or_directory, "model.safetensors.index.json"):
        filenames = _shards(index)
    paths = []
    for filename in filenames:
        path = find_file(name_or_directory, filename)
        if path is None:
            raise UserError(
                f"{name_or_directory} has no {filename}; pickled weights "
                "(pytorch_model.bin) are not read, convert them with transformers "
                "(from_pretrained, then save_pretrained)"
            )
        paths.append(path)
    return paths


def fingerprint(name_or_directory: str) -> str:
    """What identifies a checkpoint: its name on the hub, or its files in a directory.

    Returns:
        The name itself, or the SHA-256 of a directory's weights, config and
        vocabulary, or of a file that has all three.

    Raises:
        UserError: a file cannot be read.
    """
    directory = Path(name_or_directory).expanduser()
    is_one = directory.suffix == ".gguf" and directory.is_file()
    if not name_or_directory or not (is_one or directory.is_dir()):
        return name_or_directory
    digest = hashlib.sha256()
    try:
        files = [directory] if is_one else sorted(directory.iterdir())
        for path in files:
            if path.suffix in _CONTENT and path.is_file():
                digest.update(os.fsencode(path.name))
                stat = path.stat()
                digest.update(
                    _sha256(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
                )
    except OSError as error:
        raise UserError(f"{name_or_directory} cannot be read: {error}") from error
    return digest.hexdigest()


@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, *state: int) -> bytes:
    """Of a file that is in this state: all runs of a table ask for the same weights."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_text(path: Path) -> str:
    """What a file says, in UTF-8; its line ends stay as they are.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 ({error.reason})") from error
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be read: {reason}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        values = json.loads(read_text(path))
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object, found {reprlib.repr(values)}")
    return values


def _shards(index: Path) -> list[str]:
    """The files that an index names, all of them beside it."""
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(
            f"{index}: weight_map is {reprlib.repr(weight_map)}; expected an object, "
            "for each tensor the file that has it"
        )
    for name in weight_map.values():
        # The names of a checkpoint from elsewhere: they may lead nowhere else.
        if (
            not isinstance(name, str)
            or not name.isprintable()
            or not name.endswith(".safetensors")
            or PureWindowsPath(name).name != name
        ):
            raise UserError(
                f"{index}: weight_map names {reprlib.repr(name)}; expected the bare "
                "name of a .safetensors file in the same folder"
            )
    return sorted(set(weight_map.values()))
