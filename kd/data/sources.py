"""Loads a task from local files, from TFDS or from a bundled corpus.

The three give the same records, and a `Corpus` says which of them it came from:
a result never hides its data. Whatever goes wrong is a `UserError` of one line;
only `source="auto"` ever falls back, from TFDS to the bundled corpus, and says why.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd.data import tfds
from kd.data.task import Corpus, R, Task
from kd.errors import UserError


def load(task: Task[R]) -> Corpus[R]:
    """The records of a task, from `task.source`.

    TFDS data that are not prepared on this machine yet are downloaded.

    Args:
        task: what to load, and from where.

    Returns:
        The records and their origin. Local files keep their order; TFDS
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


def _load_local(task: Task[R]) -> Corpus[R]:
    if not task.directory:
        raise UserError(
            f"the local source of {task.name} needs DATA_DIR; {_advice(task)}"
        )
    directory = Path(os.path.expanduser(task.directory))
    train, dev, test = task.divide(*task.read_local(directory))
    return Corpus(
        train=train,
        dev=dev,
        test=test,
        source="local",
        name=f"local {task.name}",
        directory=str(directory),
    )


def _load_tfds(task: Task[R]) -> Corpus[R]:
    if not task.tfds:
        raise UserError(f"{task.name} is not in TFDS; {_advice(task)}")
    try:
        splits = tfds.read(task)
    except UserError as error:
        raise UserError(f"{error}; {_advice(task)}") from error
    train, dev, test = task.divide(
        _records(task, "train", splits.train), _records(task, "dev", splits.dev)
    )
    return Corpus(
        train=train,
        dev=dev,
        test=test,
        source="tfds",
        name=f"TFDS {task.tfds} {splits.version}",
        directory=splits.directory,
    )


def _records(task: Task[R], part: str, rows: Sequence[Mapping[str, Any]]) -> R:
    where = f"TFDS {task.tfds}, {part}"
    try:
        records = task.from_tfds(rows)
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{where}: not the rows of {task.name} ({type(error).__name__}: {reason}); "
            f"{_advice(task)}"
        ) from error
    if problem := task.target.problem(records.labels):
        raise UserError(f"{where}: {problem}; {_advice(task)}")
    return records


def _load_tfds_or_bundled(task: Task[R]) -> Corpus[R]:
    try:
        return _load_tfds(task)
    except UserError as error:
        if task.bundled_records() is None:
            raise
        notice = f"{error}. Going on with the bundled corpus."
        return dataclasses.replace(_load_bundled(task), notice=notice)


def _load_bundled(task: Task[R]) -> Corpus[R]:
    found = task.bundled_records()
    if found is None:
        raise UserError(f"no bundled corpus stands in for {task.name}; {_advice(task)}")
    name, train, dev = found
    return Corpus(train=train, dev=dev, source="bundled", name=f"bundled {name} corpus")


def _advice(task: Task) -> str:
    return f"DATA_DIR=DIR reads DIR/{task.local_file}"
