"""Reads a text task through TFDS, without TensorFlow.

What is prepared on this machine already needs no network; anything else is downloaded
once. Failure is a `UserError` of one line, within seconds where there is no network.
"""

import contextlib
import io
import logging
import queue
import threading
import types
import urllib.parse
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

from kd.data.glue import TextTask
from kd.errors import UserError

PATIENCE = 4.0
"""Seconds within which the host of a download must answer."""


class Splits(NamedTuple):
    """What TFDS holds of a task: examples are ([text] or [text, pair], label)."""

    train: list[tuple[list[str], int]]
    dev: list[tuple[list[str], int]]
    version: str
    directory: str


def read(task: TextTask) -> Splits:
    """Train and dev examples, after download and preparation if need be.

    Raises:
        UserError: TFDS is not installed, cannot be reached in `PATIENCE` seconds, or
            fails; or has prepared the task in a form that only TensorFlow reads.
    """
    try:  # Half a second, and only this source needs it.
        import tensorflow_datasets
        import tensorflow_datasets.text  # Registers GLUE.
    except ImportError as error:
        raise UserError(
            f"TFDS {task.tfds}: cannot import tensorflow_datasets ({error})"
        ) from error

    try:
        with _quiet():
            builder: Any = tensorflow_datasets.builder(task.tfds)
            if not builder.is_prepared():
                _check_reachable(task)
                _download_and_prepare(builder)
            sources = builder.as_data_source(split=list(task.tfds_splits))
            # All rows at once are read four times as fast as one by one.
            train, dev = (rows.__getitems__(range(len(rows))) for rows in sources)
    except UserError:
        raise
    except NotImplementedError as error:
        raise UserError(
            f"TFDS {task.tfds}: prepared as files that only TensorFlow reads;"
            " set TFDS_DATA_DIR to another folder to prepare it anew"
        ) from error
    except Exception as error:  # Its layers raise all sorts, from disk to checksum.
        reason = " ".join(str(error).split())
        raise UserError(
            f"TFDS {task.tfds}: {type(error).__name__}: {reason}"
        ) from error

    return Splits(
        train=[_example(row, task) for row in train],
        dev=[_example(row, task) for row in dev],
        version=str(builder.version),
        directory=str(builder.data_dir),
    )


def _example(row: Mapping[str, Any], task: TextTask) -> tuple[list[str], int]:
    texts = (row[feature] for feature in task.tfds_features)
    return [
        (text.decode() if isinstance(text, bytes) else text).strip() for text in texts
    ], int(row["label"])


def _check_reachable(task: TextTask) -> None:
    """Raises `UserError` unless the host of `task.url` answers within `PATIENCE`.

    Asks in a thread of its own, because no timeout bounds the look-up of a name.
    """
    import requests  # TFDS downloads with it too: the same proxies, the same trust.

    answer: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with requests.get(task.url, stream=True, timeout=PATIENCE) as response:
                answer.put("" if response.ok else f"HTTP {response.status_code}")
        except (OSError, ValueError) as error:
            answer.put(type(error).__name__)

    threading.Thread(target=ask, daemon=True).start()
    try:
        problem = answer.get(timeout=PATIENCE)
    except queue.Empty:
        problem = f"no answer in {PATIENCE:g} s"
    if problem:
        host = urllib.parse.urlsplit(task.url).netloc
        raise UserError(
            f"TFDS {task.tfds}: not prepared on this machine, and no download from"
            f" {host} ({problem})"
        )


def _download_and_prepare(builder: Any) -> None:
    """Downloads and prepares, unpacking archives in plain Python.

    TFDS 4.9.10 writes unpacked files through TensorFlow (tensorflow/datasets#11058);
    all else that a text task needs does without.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import extractor

    files: Any = types.SimpleNamespace(
        compat=types.SimpleNamespace(as_text=str),
        io=types.SimpleNamespace(gfile=types.SimpleNamespace(GFile=open)),
    )
    tensorflow, extractor.tf = extractor.tf, files
    try:
        builder.download_and_prepare(
            file_format="array_record",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )
    finally:
        extractor.tf = tensorflow


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """Keeps log lines below critical, prints and progress bars off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logging.disable(level)
