"""Image classification tasks; one constant per task.

None of these has a validation split: dev is the test split that the field reports on.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kd.data import arrays, files, idx
from kd.data.arrays import Arrays
from kd.data.task import Corpus, Prepared, Task
from kd.errors import UserError
from kd.models.bert import Bert
from kd.types import Architecture


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTask(Task[Arrays]):
    """A classification of images of one size, in idx files or TFDS.

    Batches hold "inputs" [b, h, w, c] float32, of mean 0 and variance 1 in each channel
    over the training split.
    """

    tfds_module: ClassVar[str] = "image_classification"

    tfds_splits: tuple[str, str] = ("train", "test")

    @property
    def local_file(self) -> str:
        return f"{self.name}/train-images-idx3-ubyte"

    def read_local(self, directory: Path) -> tuple[Arrays, Arrays]:
        train, dev = (self._read_idx(directory, part) for part in ("train", "t10k"))
        if train.inputs.shape[1:] != dev.inputs.shape[1:]:
            raise UserError(
                f"{directory / self.name}: images of train are "
                f"{train.inputs.shape[1:3]}, of t10k {dev.inputs.shape[1:3]}"
            )
        return train, dev

    def _read_idx(self, directory: Path, part: str) -> Arrays:
        def read(what: str, num_axes: int) -> tuple[Path, np.ndarray]:
            file_name = f"{part}-{what}-idx{num_axes}-ubyte"
            path, content = files.read(directory, self.name, file_name)
            return path, idx.parse(path, content, num_axes=num_axes)

        (_, images), (path, labels) = read("images", 3), read("labels", 1)
        if len(images) != len(labels):
            raise UserError(
                f"{path}: {len(labels):,} labels for {len(images):,} images"
            )
        wrong = np.flatnonzero(labels >= self.num_classes)
        if len(wrong):
            raise UserError(
                f"{path}: example {wrong[0]} is of class {labels[wrong[0]]}; expected "
                f"0 to {self.num_classes - 1}"
            )
        return Arrays(images[..., None], labels.astype(np.int32))

    def from_tfds(self, rows: Sequence[Mapping[str, Any]]) -> Arrays:
        return Arrays(
            np.stack([row["image"] for row in rows]),
            np.array([row["label"] for row in rows], np.int32),
        )

    def prepare(
        self, corpus: Corpus[Arrays], directory: Path, *, adopt: Path | None = None
    ) -> Prepared:
        return arrays.prepare(corpus, directory, adopt=adopt)

    def preprocessing(self, directory: Path) -> str:
        return arrays.preprocessing(directory)

    def check(self, network: Architecture, name: str) -> None:
        if isinstance(network, Bert):
            raise ValueError(f"{name} is a Bert, which reads text, not images")


FASHION_MNIST = ImageTask(
    name="fashion-mnist",
    labels=(
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt",
        "sneaker", "bag", "ankle boot",
    ),
    tfds="fashion_mnist",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz",
)  # fmt: skip
"""Clothes in 28 x 28 grey pixels: 60,000 of train, 10,000 of dev, 10 classes.

Source: xiao2017fashion; scored by accuracy.
"""

MNIST = ImageTask(
    name="mnist",
    labels=tuple("0123456789"),
    tfds="mnist",
    url="https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz",
)
"""Handwritten digits in 28 x 28 grey pixels: 60,000 of train, 10,000 of dev.

Source: lecun1998mnist; scored by accuracy.
"""
