"""Two views of a number: grids of handwritten digits, made of single ones on the fly.

Both views show a grid of k digits. The digits of the first are drawn uniformly; each
digit of the second follows the one in its place, 0 following 9; and the handwriting of
every digit of either view is drawn by itself. So all that the views share is the number
that the first one shows, and their mutual information is known:

    I(x; y) = k ln 10  nats

since a digit's image tells which it is.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Shaped

from kd.data.arrays import Arrays, Normalized
from kd.data.images import MNIST, ImageTask
from kd.data.task import Corpus, Prepared
from kd.errors import UserError
from kd.evaluate.digits import Digits
from kd.models.mlp import MLP
from kd.types import Architecture


class Drawn(NamedTuple):
    """What the grids of a split are made of; images by their place in the singles."""

    digits: Int[np.ndarray, "n k"]
    """That the first views show."""
    first: Int[np.ndarray, "n k"]
    """Images of the first views."""
    second: Int[np.ndarray, "n k"]
    """Images of the second views."""


def draw(
    labels: Int[np.ndarray, "m"], num: int, num_digits: int, *, stream: int
) -> Drawn:
    """Draws the grids of a split; the same arguments give the same.

    Args:
        labels: digit of every single image; each digit is there.
        num: of grids.
        num_digits: in each.
        stream: of the randomness; one for each split.
    """
    random = np.random.Generator(np.random.Philox(key=[stream, num_digits]))
    members = [np.flatnonzero(labels == digit) for digit in range(10)]
    counts = np.array([len(found) for found in members])
    images = np.concatenate(members)
    starts = np.cumsum(counts) - counts
    digits = random.integers(0, 10, (num, num_digits))

    def handwritten(shown: np.ndarray) -> np.ndarray:
        places = random.integers(0, counts[shown])
        return images[starts[shown] + places]

    return Drawn(digits, handwritten(digits), handwritten(successor(digits)))


def successor(digits: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """The digit that follows, 0 after 9."""
    return (digits + 1) % 10


@dataclasses.dataclass(frozen=True, eq=False)
class Grids:
    """A split of grids.

    Attributes:
        singles: the images that they are made of.
        drawn: which.
        labels: the numbers that the first views show.
    """

    singles: Normalized
    drawn: Drawn
    labels: Shaped[np.ndarray, "num_examples"]

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def groups(self) -> Int[np.ndarray, "num_examples"]:
        """All examples are of one shape."""
        return np.zeros(len(self), np.int32)

    def inputs(self, index: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """inputs and others, the two views, [b, h, w, c] float32."""
        return {
            "inputs": self._grid(self.drawn.first[index]),
            "others": self._grid(self.drawn.second[index]),
        }

    def _grid(self, images: Int[np.ndarray, "b k"]) -> Float32[np.ndarray, "b h w c"]:
        rows, columns = shape_of(images.shape[1])
        tiles = self.singles.arrays.inputs[images]
        num, _, height, width, channels = tiles.shape
        tiles = tiles.reshape(num, rows, columns, height, width, channels)
        grid = tiles.swapaxes(2, 3).reshape(
            num, rows * height, columns * width, channels
        )
        return self.singles.normalization(grid)

    def content(self) -> bytes:
        drawn = b"".join(part.tobytes() for part in self.drawn)
        return self.singles.content() + drawn


def shape_of(num_digits: int) -> tuple[int, int]:
    """Rows and columns: as square as can be, 2 x 2, 3 x 3, but 1 x 2."""
    rows = max(r for r in range(1, math.isqrt(num_digits) + 1) if not num_digits % r)
    return rows, num_digits // rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitGrids(ImageTask):
    """Pairs of grids made of the single digits of an image task.

    Train is made of its training images, dev of its dev images, test of its test
    images. Batches hold the two views as "inputs" and "others" [b, h, w, c] float32,
    scaled as single images are.
    Labels, the numbers shown, are there for probes alone (`kd.evaluate.digits`).

    Attributes:
        num_train: grids to learn from.
        num_dev: grids to probe with, of dev and of test, one half to train probes and
            one to ask them.

    Source: after the grids of Omniglot characters of ozair2019wasserstein, of 1, 4 and
    9 places, whose second view shows the character after each.
    """

    num_views: ClassVar[int] = 2

    target: Digits
    num_train: int = 60_000
    num_dev: int = 4_000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("num_train", 1), ("num_dev", 100)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} must be at least {least}, got {getattr(self, name)}"
                )
        if self.unlabelled:
            raise ValueError(
                "no label is learnt from here, so unlabelled must be 0, got "
                f"{self.unlabelled}"
            )

    @property
    def mutual_information(self) -> float:
        """Of the two views, nats."""
        return self.target.num_digits * math.log(10)

    def encode(self, corpus: Corpus[Arrays], directory: Path) -> Prepared:
        singles = super().encode(corpus, directory)
        test = singles.test
        return singles._replace(
            train=self._grids(singles.train, self.num_train, 0, "train"),
            dev=self._grids(singles.dev, self.num_dev, 1, "dev"),
            test=test and self._grids(test, self.num_dev, 2, "test"),
        )

    def _grids(self, singles, num: int, stream: int, name: str) -> Grids:
        missing = sorted({*range(10)} - {*singles.labels.tolist()})
        if missing:
            raise UserError(
                f"{self.name}, {name}: there is no image of {missing[0]}; grids need "
                "all ten digits"
            )
        drawn = draw(singles.labels, num, self.target.num_digits, stream=stream)
        return Grids(singles, drawn, self.target.numbers(drawn.digits))

    def check(self, network: Architecture, name: str) -> None:
        super().check(network, name)
        if not isinstance(network, MLP):
            raise ValueError(
                f"{name} is a {type(network).__name__}, which averages over places; "
                "what is where takes an MLP"
            )


MULTI_MNIST = DigitGrids(
    name=MNIST.name, target=Digits(), tfds=MNIST.tfds, url=MNIST.url
)
"""Grids of nine digits of MNIST, 84 x 84 grey pixels; 20.7 nats in common.

Source: lecun1998mnist for the digits; scored by linear probes.
"""
