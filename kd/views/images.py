"""Views of single images: flipped, cropped, with a hole.

The label of an image stays, and what a teacher says of it does not. What is not of the
image is 0, the mean of the training set's pixels.
"""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from kd.types import Batch
from kd.views.meaning import only_images
from kd.views.view import Ask, View, with_inputs

if TYPE_CHECKING:
    from kd.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class _OfImages(View):
    def problems(self, experiment: "Experiment") -> Iterator[str]:
        if problem := only_images(self, experiment.data):
            yield problem


@dataclasses.dataclass(frozen=True)
class Flip(_OfImages):
    """Images of which some are seen in a mirror, left and right exchanged.

    Args:
        probability: of each, in [0, 1].
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be in [0, 1], got {self.probability}")

    def __call__(
        self, key: PRNGKeyArray, batch: Batch, ask: Ask | None = None
    ) -> dict[str, Any]:
        del ask
        images = batch["inputs"]
        flipped = jax.random.bernoulli(key, self.probability, (len(images), 1, 1, 1))
        images = jnp.where(flipped, images[:, :, ::-1], images)
        return with_inputs(batch, inputs=images)


@dataclasses.dataclass(frozen=True)
class Crop(_OfImages):
    """Images moved by up to `padding` pixels in both directions, each its own way.

    Args:
        padding: pixels of the mean colour on every side, of which the image as large as
            before is cut anywhere.

    Source: he2016resnet, section 4.2, for CIFAR, with 4.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"padding must not be negative, got {self.padding}")

    def __call__(
        self, key: PRNGKeyArray, batch: Batch, ask: Ask | None = None
    ) -> dict[str, Any]:
        del ask
        images, padding = batch["inputs"], self.padding
        sides = (padding, padding)
        padded = jnp.pad(images, ((0, 0), sides, sides, (0, 0)))
        corners = jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1)

        def cut(image, corner):
            return jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

        return with_inputs(batch, inputs=jax.vmap(cut)(padded, corners))


@dataclasses.dataclass(frozen=True)
class Cutout(_OfImages):
    """Images with a square hole of the mean colour, each elsewhere.

    Args:
        size: of the square, in pixels; around a pixel drawn uniformly, so that it may
            reach beyond the image.

    Source: devries2017cutout: 16 for CIFAR-10, 8 for CIFAR-100. The codes of
    wang2022augmentation and kim2024r2kd cut one square for a whole batch.
    """

    size: int = 8

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size must not be negative, got {self.size}")

    def __call__(
        self, key: PRNGKeyArray, batch: Batch, ask: Ask | None = None
    ) -> dict[str, Any]:
        del ask
        images = batch["inputs"]
        num, *sizes, _ = images.shape
        inside = []
        for own, size in zip(jax.random.split(key), sizes, strict=True):
            first = jax.random.randint(own, (num, 1), 0, size) - self.size // 2
            place = jnp.arange(size)
            inside.append((place >= first) & (place < first + self.size))
        hole = inside[0][:, :, None] & inside[1][:, None, :]
        return with_inputs(batch, inputs=jnp.where(hole[..., None], 0, images))
