"""Views that mix every example with another one of its batch, labels included."""

import abc
import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from kd.types import Batch
from kd.views.meaning import only_images, only_numbers
from kd.views.view import Ask, View, is_answer, rebalanced, with_inputs

if TYPE_CHECKING:
    from kd.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Mixing(View):
    """Example i is mixed with example j(i) of its batch.

        x'_i = mixture of x_i, by the share lambda_i, and of x_j(i) by the rest

    An example keeps its label with the weight lambda_i and gets that of the other one
    with the weight 1 - lambda_i, see `kd.objective.Mix`; so of cross-entropy the loss
    is that of the mixed labels. The pairs are a random cycle through all examples of
    the batch that are not masked: none is mixed with itself, and each is the other one
    of one.

    Args:
        alpha: of the Beta(alpha, alpha) that lambda is drawn from, once a batch; 0 for
            lambda = 1, which mixes nothing.
        answers: "live" to ask the teachers about the mixture, "interpolated" for the
            logits lambda t_i + (1 - lambda) t_j(i) of their cached ones, which spares
            their forward passes.
    """

    alpha: float = 1.0
    answers: Literal["live", "interpolated"] = "live"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha must be at least 0 and finite, got {self.alpha}")

    @property
    def changes_answers(self) -> bool:
        return self.answers == "interpolated"

    @property
    def mixes(self) -> bool:
        return True

    def problems(self, experiment: "Experiment") -> Iterator[str]:
        if problem := self.problem_of(experiment):
            yield problem
        if self.answers == "live":
            return
        name = type(self).__name__
        if experiment.answers == "live":
            yield (
                f"{name} interpolates cached answers, and answers=live asks the "
                "teacher about the mixture itself: set answers=cached, or "
                f"{name}(answers='live')"
            )
        readers = [
            t.loss.name for t in experiment.objective.terms if t.loss.reads_hidden
        ]
        if readers:
            yield (
                f"{name} interpolates cached logits, and {', '.join(readers)} reads "
                f"more of the teacher: {name}(answers='live')"
            )

    @abc.abstractmethod
    def problem_of(self, experiment: "Experiment") -> str:
        """Why there is no such mixture of the task's examples; "" if there is."""

    @abc.abstractmethod
    def mixture(
        self,
        key: PRNGKeyArray,
        share: Float[Array, ""],
        other: Int[Array, "b"],
        batch: Batch,
    ) -> tuple[dict[str, Array], Float[Array, "b"]]:
        """Mixed inputs, and what part of each is its own example.

        Args:
            key: of what is drawn.
            share: lambda, as drawn.
            other: j(i) of every example i.
            batch: what is mixed.
        """

    def __call__(
        self, key: PRNGKeyArray, batch: Batch, ask: Ask | None = None
    ) -> dict[str, Any]:
        del ask
        of_pairs, of_share, of_mixture = jax.random.split(key, 3)
        other = pairs(of_pairs, batch["mask"])
        share = jnp.ones(())
        if self.alpha:
            share = jax.random.beta(of_share, self.alpha, self.alpha)
        inputs, own = self.mixture(of_mixture, share, other, batch)
        changed = with_inputs(batch, **inputs)
        if "labels" in batch:
            weight = batch.get("label_weight", jnp.ones_like(own))
            changed |= {
                "label_weight": own * weight,
                "mixed_labels": batch["labels"][other],
                "mixed_label_weight": (1 - own) * weight[other],
            }
        if "label_weight" in batch:
            changed = rebalanced(changed)
        if self.answers == "interpolated":
            for name, logits in batch.items():
                if is_answer(name):
                    changed[name] = interpolated(logits, own, other)
        return changed


@dataclasses.dataclass(frozen=True)
class Mixup(Mixing):
    """Interpolated examples.

        x'_i = lambda x_i + (1 - lambda) x_j(i)

    Of images and of rows of a table.

    Source: zhang2018mixup. As TLmixup, "teacher-labelled", of wang2021understanding it
    is `Beside(Mixup())`: the teacher is asked about the mixture, and labels take no
    part in it. Their code draws any permutation for j.
    """

    def problem_of(self, experiment: "Experiment") -> str:
        return only_numbers(self, experiment.data)

    def mixture(self, key, share, other, batch):
        del key
        own = jnp.broadcast_to(share, batch["mask"].shape)
        return {"inputs": interpolated(batch["inputs"], own, other)}, own


@dataclasses.dataclass(frozen=True)
class CutMix(Mixing):
    """Images with a rectangle of another one.

        x'_i = x_j(i) inside the rectangle, x_i outside

    The rectangle has sqrt(1 - lambda) of height and of width, around a pixel drawn
    uniformly, and ends with the image; lambda is then the share of pixels outside. It
    is the same for all images of a batch.

    Source: yun2019cutmix. As TLCutMix of wang2021understanding it is
    `Beside(CutMix())`, see `Mixup`. Their code draws a permutation that moves
    everything for j.
    """

    def problem_of(self, experiment: "Experiment") -> str:
        return only_images(self, experiment.data)

    def mixture(self, key, share, other, batch):
        images = batch["inputs"]
        inside = rectangle(key, images.shape[1], images.shape[2], share)
        mixed = jnp.where(inside[None, :, :, None], images[other], images)
        own = jnp.broadcast_to(1 - jnp.mean(inside, dtype=share.dtype), other.shape)
        return {"inputs": mixed}, own


def pairs(key: PRNGKeyArray, where: Bool[Array, "b"]) -> Int[Array, "b"]:
    """For every row the next in a random cycle of those in `where`, or itself."""
    num = jnp.sum(where)
    order = jnp.argsort(jnp.where(where, jax.random.uniform(key, where.shape), 2))
    place = jnp.arange(len(where))
    after = jnp.where(place < num, (place + 1) % jnp.maximum(num, 1), place)
    return jnp.zeros_like(order).at[order].set(order[after])


def interpolated(
    values: Float[Array, "b ..."], own: Float[Array, "b"], other: Int[Array, "b"]
) -> Float[Array, "b ..."]:
    """Every row, by its share, and the other one of it by the rest."""
    own = own.reshape(-1, *[1] * (values.ndim - 1)).astype(values.dtype)
    return own * values + (1 - own) * values[other]


def rectangle(
    key: PRNGKeyArray, height: int, width: int, share: Float[Array, ""]
) -> Bool[Array, "h w"]:
    """True inside a rectangle that leaves out a share of the pixels, or more."""
    cut = jnp.sqrt(1 - share)
    sides = []
    for own, size in zip(jax.random.split(key), (height, width), strict=True):
        half = (cut * size).astype(jnp.int32) // 2
        middle = jax.random.randint(own, (), 0, size)
        place = jnp.arange(size)
        sides.append((place >= middle - half) & (place < middle + half))
    return sides[0][:, None] & sides[1][None, :]
