"""Attention: of feature maps, where they are large, and of transformers, to what."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd.features import layers
from kd.features.feature import FeatureLoss, PositionLoss, position_mean
from kd.features.norms import scaled, unit
from kd.types import Batch, Outputs, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionTransfer(PositionLoss):
    """Where in an example the features are large.

        a_ip = sum_c s_ipc^2,  b_ip = sum_c t_ipc^2
        losses_i = 1/|P_i| sum_p (a_ip / |a_i| - b_ip / |b_i|)^2

    over the positions P_i of example i, no unit. The widths of student and teacher do
    not matter, and nothing is learned.

    Source: zagoruyko2017attention, whose equation has neither the square of the
    distance nor the mean over positions; their code has both.
    """

    name = "attention_transfer"

    def rows(self, params, student, teacher, where):
        del params
        gaps = unit(_energy(student)) - unit(_energy(teacher))
        return position_mean(jnp.square(gaps), where)


def _energy(features: Float[Array, "b p d"]) -> Float[Array, "b p"]:
    return jnp.sum(jnp.square(scaled(features, axis=(1, 2))[0]), axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionMSE(FeatureLoss):
    """Mean squared error of the attention probabilities of two transformers.

        losses_i = 1/(h n_i^2) sum_hjk (A_ihjk - B_ihjk)^2

    over h heads and the n_i real tokens of example i, of which j attends to k; no
    unit. Layers are counted as those of hidden states, so the first is 1.

    Args:
        student_layer: which of the student's layers.
        teacher_layer: which of the teacher's.
        heads: "each" to compare head by head, which takes as many on both sides,
            "mean" to compare the means over heads.

    Source: jiao2020tinybert. Their code compares scores before the softmax, which
    `kd.types.Outputs` does not hold, and averages over padding too.
    """

    name = "attention_mse"
    heads: Literal["each", "mean"] = "each"

    def __post_init__(self) -> None:
        if self.heads not in ("each", "mean"):
            raise ValueError(f'heads is "each" or "mean", got {self.heads!r}')

    def __call__(
        self,
        student: Float[Array, "b h n n"],
        teacher: Float[Array, "b g n n"],
        *,
        where: Bool[Array, "b n"] | None = None,
    ) -> Float[Array, "b"]:
        """Loss of every row.

        Args:
            student: attention probabilities.
            teacher: likewise, of the same tokens.
            where: True on the tokens to keep; a row without any gives 0.

        Returns:
            One value per row, in float32 (float64 if the probabilities are).

        Raises:
            Misfit: the shapes do not fit.
        """
        compared = (0, 2, 3) if self.heads == "mean" else range(4)
        if student.ndim != 4 or (
            teacher.ndim != 4
            or any(student.shape[i] != teacher.shape[i] for i in compared)
        ):
            hint = "" if self.heads == "mean" else '; heads="mean" compares their means'
            raise layers.Misfit(
                f"AttentionMSE: student {student.shape}, teacher {teacher.shape} are "
                f"not [b, h, n, n] of the same heads and tokens{hint}"
            )
        where = jnp.ones(student.shape[::2], bool) if where is None else where
        student = layers.lifted(student)
        teacher = jax.lax.stop_gradient(layers.lifted(teacher))
        if self.heads == "mean":
            student, teacher = (
                jnp.mean(x, axis=1, keepdims=True) for x in (student, teacher)
            )
        real = (where[:, :, None] & where[:, None, :])[:, None]
        gaps = jnp.where(real, student, 0) - jnp.where(real, teacher, 0)
        pairs = jnp.maximum(jnp.sum(real, axis=(1, 2, 3)), 1)
        return jnp.sum(jnp.square(gaps), axis=(1, 2, 3)) / (pairs * gaps.shape[1])

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        del params
        assert teacher is not None
        return self(
            layers.layer("student", student.attention, self.student_layer, first=1),
            layers.layer("teacher", teacher.attention, self.teacher_layer, first=1),
            where=batch["token_mask"] & batch["mask"][:, None],
        )
