"""Loads a text task from local files, from TFDS or from a bundled corpus.

The three give the same records, and a `Corpus` says which of them it came from:
a result never hides its data. Whatever goes wrong is a `UserError` of one line;
only `source="auto"` ever falls back, from TFDS to the bundled corpus, and says why.
"""

import dataclasses
import functools
import gzip
import hashlib
import json
import lzma
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32

from kd.data import sentiment, tfds
from kd.data.glue import TextTask
from kd.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """The examples of one split, in order."""

    texts: list[str]
    """Sentences, without white space around them; the first ones of pairs."""
    labels: Int32[np.ndarray, "n"]
    """Classes in [0, num_classes)."""
    pairs: list[str] | None = None
    """The second sentences of pairs."""

    def __len__(self) -> int:
        return len(self.texts)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """A task's train and dev records, and where they came from."""

    train: Records
    dev: Records
    source: Literal["local", "tfds", "bundled"]
    name: str
    """Of the data at its source, such as "TFDS glue/sst2 2.0.0"."""
    directory: str = ""
    """Where the files lie on this machine; no part of `origin`."""
    notice: str = ""
    """Why another source than the first choice was taken."""

    @property
    def origin(self) -> str:
        """One line, the same on every machine."""
        return f"{self.name} ({len(self.train):,} train, {len(self.dev):,} dev)"

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of texts and labels, in order, as 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for records in (self.train, self.dev):
            content = [records.texts, records.pairs, records.labels.tolist()]
            digest.update(json.dumps(content).encode())
        return digest.hexdigest()


def load(task: TextTask) -> Corpus:
    """The records of a task, from `task.source`.

    TFDS data that are not prepared on this machine yet are downloaded.

    Args:
        task: what to load, and from where.

    Returns:
        Train and dev records and their origin. Local files keep their order; TFDS
        shuffles once, when it prepares the data, so that its fingerprint differs.

    Raises:
        UserError: the source has no such data, or they are not what they should be.
    """
    match task.source:
        case "local":
            return _load_local(task)
        case "tfds":
            return _load_tfds(task)
        case "bundled":
            return _load_bundled(task)
        case "auto":
            return _load_local(task) if task.directory else _load_tfds_or_bundled(task)
    raise UserError(
        f"source {task.source!r}; expected 'auto', 'local', 'tfds' or 'bundled'"
    )


def _load_tfds(task: TextTask) -> Corpus:
    try:
        splits = tfds.read(task)
    except UserError as error:
        raise UserError(f"{error}; {_advice(task)}") from error
    return Corpus(
        train=_records(splits.train),
        dev=_records(splits.dev),
        source="tfds",
        name=f"TFDS {task.tfds} {splits.version}",
        directory=splits.directory,
    )


def _load_tfds_or_bundled(task: TextTask) -> Corpus:
    try:
        return _load_tfds(task)
    except UserError as error:
        if not task.bundled:
            raise
        notice = f"{error}. Going on with the bundled corpus."
        return dataclasses.replace(_load_bundled(task), notice=notice)


def _load_bundled(task: TextTask) -> Corpus:
    if not task.bundled:
        raise UserError(f"no bundled corpus stands in for {task.name}; {_advice(task)}")
    train, dev = (
        _records(([text], label) for text, label in examples)
        for examples in sentiment.corpus()
    )
    name = f"bundled {task.bundled} corpus"
    return Corpus(train=train, dev=dev, source="bundled", name=name)


def _records(examples: Iterable[tuple[Sequence[str], int]]) -> Records:
    """Records of ([text] or [text, pair], label)."""
    texts, pairs, labels = [], [], []
    for sentences, label in examples:
        texts.append(sentences[0])
        pairs.extend(sentences[1:])
        labels.append(label)
    return Records(texts, np.array(labels, np.int32), pairs or None)


def _advice(task: TextTask) -> str:
    return f"DATA_DIR=DIR reads DIR/{task.name}/train.tsv"


_OPEN = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def _load_local(task: TextTask) -> Corpus:
    if not task.directory:
        raise UserError(
            f"the local source of {task.name} needs DATA_DIR; {_advice(task)}"
        )
    directory = Path(os.path.expanduser(task.directory))
    train, dev = (
        _parse(*_read(directory, task.name, f"{split}.tsv"), task=task)
        for split in ("train", "dev")
    )
    return Corpus(
        train=train,
        dev=dev,
        source="local",
        name=f"local {task.name}",
        directory=str(directory),
    )


def _read(directory: Path, task_name: str, file_name: str) -> tuple[Path, bytes]:
    """Path and content of a file that is plain or compressed."""
    path = directory / task_name / file_name
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
        present = sorted({dev.parent.name for dev in directory.glob("*/dev.tsv*")})
        raise UserError(
            f"no {task_name} folder in {directory}; expected {path} (.gz, .xz);"
            f" task folders there: {', '.join(present) or 'none'}"
        )
    raise UserError(f"{path}: no such file, nor with .gz or .xz")


def _parse(path: Path, content: bytes, *, task: TextTask) -> Records:
    """Records of a TSV file with a header; quotes are text, line ends LF or CRLF."""
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 ({error.reason})") from error
    if not lines[-1]:
        lines.pop()
    if len(lines) < 2:
        raise UserError(f"{path}: no examples; expected a header and then one per line")

    header = lines[0].removesuffix("\r").split("\t")
    wanted = (*task.columns, task.label_column)
    if not set(wanted) <= set(header):
        raise UserError(
            f"{path}:1: the header has the columns {_quoted(header)};"
            f" expected {_quoted(wanted)}"
        )
    places = [header.index(column) for column in wanted]
    classes = {label: i for i, label in enumerate(task.labels)}
    classes |= {str(i): i for i in range(task.num_classes)}

    def example(number: int, line: str) -> tuple[list[str], int]:
        fields = line.removesuffix("\r").split("\t")
        if len(fields) != len(header):
            raise UserError(
                f"{path}:{number}: {len(fields)} fields between tabs;"
                f" expected {len(header)}, {_quoted(header)}"
            )
        *texts, label = (fields[place].strip() for place in places)
        if label not in classes:
            raise UserError(
                f"{path}:{number}: label {_quoted([label])}; expected"
                f" 0 to {task.num_classes - 1} or {_quoted(task.labels)}"
            )
        if not all(texts):
            raise UserError(f"{path}:{number}: empty {task.columns[texts.index('')]}")
        return texts, classes[label]

    return _records(example(*row) for row in enumerate(lines[1:], start=2))


def _quoted(words: Iterable[str]) -> str:
    """The words, escaped and short enough for one line of a terminal."""
    line = ", ".join(map(repr, words))
    return line if len(line) <= 80 else line[:80] + "…"
