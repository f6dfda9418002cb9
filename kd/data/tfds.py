"""Reads a task through TFDS, without TensorFlow.

What is prepared on this machine already needs no network; anything else is downloaded
once. Failure is a `UserError` of one line, within seconds where there is no network.
"""

import contextlib
import importlib
import io
import logging
import queue
import sys
import threading
import types
import urllib.parse
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from kd.data.task import Task
from kd.errors import UserError

PATIENCE = 4.0
"""Seconds within which the host of a download must answer."""


class Splits(NamedTuple):
    """What TFDS holds of a task: its rows, features by name."""

    train: Sequence[Mapping[str, Any]]
    dev: Sequence[Mapping[str, Any]]
    version: str
    directory: str


def read(task: Task) -> Splits:
    """Train and dev rows, after download and preparation if need be.

    Raises:
        UserError: TFDS is not installed, cannot be reached in `PATIENCE` seconds, or
            fails; or has prepared the task in a form that only TensorFlow reads.
    """
    try:  # Half a second, and only this source needs it.
        import tensorflow_datasets

        # Registers the data set.
        importlib.import_module(f"tensorflow_datasets.{task.tfds_module}")
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
        train=train,
        dev=dev,
        version=str(builder.version),
        directory=str(builder.data_dir),
    )


def _check_reachable(task: Task) -> None:
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
    """Downloads and prepares in plain Python.

    TFDS 4.9.10 writes unpacked files (tensorflow/datasets#11058), reads some of them
    and encodes images through TensorFlow; all else does without.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import extractor
    from tensorflow_datasets.core.features import image_feature

    files: Any = types.SimpleNamespace(
        compat=types.SimpleNamespace(as_text=str),
        io=types.SimpleNamespace(gfile=types.SimpleNamespace(GFile=open)),
    )
    own_module = sys.modules[type(builder).__module__]
    with contextlib.ExitStack() as stack:
        for module in (extractor, own_module):
            if hasattr(module, "tf"):
                stack.enter_context(mock.patch.object(module, "tf", files))
        encoder = image_feature._ImageEncoder
        stack.enter_context(mock.patch.object(encoder, "_encode_image", _to_png))
        builder.download_and_prepare(
            file_format="array_record",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )


def _to_png(encoder: Any, image: np.ndarray) -> bytes:
    from PIL import Image

    del encoder
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
        buffer, format="PNG"
    )
    return buffer.getvalue()


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
