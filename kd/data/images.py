"""Tasks of images; one constant per task."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from kd.data import arrays, cifar, files, idx, jpeg
from kd.data.arrays import Arrays
from kd.data.task import Corpus, Prepared, Task
from kd.errors import UserError
from kd.evaluate.classes import Classes
from kd.models.bert import Bert
from kd.types import Architecture


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTask(Task[Arrays]):
    """Something asked of images of one size.

    Batches hold "inputs" [b, h, w, c] float32, of mean 0 and variance 1 in each channel
    over the training split.

    The field's data sets have no validation split. Dev is held out of the training
    images, by a hash of each, see `Arrays.held_out`; the test split is scored once, at
    the end.

    Attributes:
        dev_share: share of the training images that are of dev, about; 0 for all to
            train on and the test split as dev, as most published code has it.
        layout: of local files: "idx" for those of MNIST, images and labels apart;
            "cifar" and "cifar100" for the binary versions of CIFAR-10 and CIFAR-100;
            "jpeg" for a tar archive of `train/<class>/*.jpg` and `test/<class>/*.jpg`.
    """

    tfds_module: ClassVar[str] = "image_classification"

    tfds_splits: tuple[str, str] = ("train", "test")
    layout: Literal["idx", "cifar", "cifar100", "jpeg"] = "idx"
    dev_share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dev_share < 1:
            raise ValueError(f"dev_share must lie in [0, 1), got {self.dev_share}")

    @property
    def local_file(self) -> str:
        return f"{self.name}/{self._file_names()[0][0]}"

    def _file_names(self) -> tuple[list[str], list[str]]:
        """Files of train and of test."""
        if self.layout == "jpeg":
            return [f"{self.name}.tar"], [f"{self.name}.tar"]
        if self.layout == "cifar100":
            return ["train.bin"], ["test.bin"]
        if self.layout == "cifar":
            return [f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]
        train, dev = (
            [f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"]
            for part in ("train", "t10k")
        )
        return train, dev

    def read_local(self, directory: Path) -> tuple[Arrays, Arrays]:
        if self.layout == "jpeg":
            path, content = files.read(directory, self.name, self._file_names()[0][0])
            train, dev = (
                Arrays(*jpeg.parse(path, content, part, self.labels))
                for part in ("train", "test")
            )
            return train, dev
        train, dev = (
            self._parse([files.read(directory, self.name, name) for name in names])
            for names in self._file_names()
        )
        if train.inputs.shape[1:] != dev.inputs.shape[1:]:
            raise UserError(
                f"{directory / self.name}: images of train are "
                f"{train.inputs.shape[1:3]}, of dev {dev.inputs.shape[1:3]}"
            )
        return train, dev

    def _parse(self, found: list[tuple[Path, bytes]]) -> Arrays:
        if self.layout in ("cifar", "cifar100"):
            before = 1 if self.layout == "cifar100" else 0  # the coarse class
            parts = [
                (path, *cifar.parse(path, content, skip=before))
                for path, content in found
            ]
        else:
            (path_of_images, pixels), (path, classes) = found
            images = idx.parse(path_of_images, pixels, num_axes=3)
            labels = idx.parse(path, classes, num_axes=1)
            if len(images) != len(labels):
                raise UserError(
                    f"{path}: {len(labels):,} labels for {len(images):,} images"
                )
            parts = [(path, images[..., None], labels)]
        for path, _, labels in parts:
            if problem := self.target.problem(labels):
                raise UserError(f"{path}: {problem}")
        return Arrays(
            np.concatenate([images for _, images, _ in parts]),
            np.concatenate([labels for *_, labels in parts]).astype(np.int32),
        )

    def divide(
        self, train: Arrays, judged: Arrays, test: Arrays | None = None
    ) -> tuple[Arrays, Arrays, Arrays | None]:
        if test is not None or not self.dev_share:
            return train, judged, test
        is_dev = train.held_out(self.dev_share)
        for name, members in (("train", ~is_dev), ("dev", is_dev)):
            if not members.any():
                raise UserError(
                    f"{self.name}: of its {len(train)} training images none falls to "
                    f"{name} at a dev_share of {self.dev_share}; it needs more images, "
                    "or 0 for the test split as dev"
                )
        return train.where(~is_dev), train.where(is_dev), judged

    def from_tfds(self, rows: Sequence[Mapping[str, Any]]) -> Arrays:
        return Arrays(
            np.stack([row["image"] for row in rows]),
            np.array([row["label"] for row in rows], np.int32),
        )

    def put_preprocessing(
        self, corpus: Corpus[Arrays], directory: Path, *, adopt: str = ""
    ) -> None:
        arrays.put_normalization(corpus, directory, adopt=adopt)

    def encode(self, corpus: Corpus[Arrays], directory: Path) -> Prepared:
        return arrays.normalized(corpus, directory)

    def preprocessing(self, place: str | Path) -> str:
        return arrays.preprocessing(place)

    def check(self, network: Architecture, name: str) -> None:
        if isinstance(network, Bert):
            raise ValueError(f"{name} is a Bert, which reads text, not images")


_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
    "truck",
)  # fmt: skip

_CIFAR100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle",
    "bicycle", "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can",
    "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud",
    "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin",
    "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo",
    "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man",
    "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain",
    "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail",
    "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table",
    "tank", "telephone", "television", "tiger", "tractor", "train", "trout", "tulip",
    "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip

FASHION_MNIST = ImageTask(
    name="fashion-mnist",
    target=Classes((
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt",
        "sneaker", "bag", "ankle boot",
    )),
    tfds="fashion_mnist",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz",
)  # fmt: skip
"""Clothes in 28 x 28 grey pixels: 60,000 of train, 10,000 of test, 10 classes.

Source: xiao2017fashion; scored by accuracy.
"""

MNIST = ImageTask(
    name="mnist",
    target=Classes(tuple("0123456789")),
    tfds="mnist",
    url="https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz",
)
"""Handwritten digits in 28 x 28 grey pixels: 60,000 of train, 10,000 of test.

Source: lecun1998mnist; scored by accuracy.
"""

CIFAR10 = ImageTask(
    name="cifar-10-batches-bin",
    target=Classes(_CIFAR10),
    layout="cifar",
    tfds="cifar10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
)  # fmt: skip
"""Things and animals in 32 x 32 pixels of colour: 50,000 of train, 10,000 of test.

Source: krizhevsky2009cifar; scored by accuracy.
"""

CIFAR10_JPEG = ImageTask(name="cifar10-jpeg", target=Classes(_CIFAR10), layout="jpeg")
"""A copy of CIFAR-10 whose images have gone through JPEG: same splits, other pixels.

Accuracies on it are not comparable with those on CIFAR-10.
"""

CIFAR100 = ImageTask(
    name="cifar-100-binary",
    target=Classes(_CIFAR100),
    layout="cifar100",
    tfds="cifar100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
)
"""Things and animals in 32 x 32 pixels of colour: 50,000 of train, 10,000 of test, 100
classes, the fine ones.

Source: krizhevsky2009cifar; scored by accuracy.
"""
