"""Losses of the student and what the data say, without a teacher."""

import abc
import dataclasses
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from kd.objective.loss import Loss
from kd.types import Batch, Outputs, Params


def nan_without_class(
    losses: Float[Array, "b"], labels: Int[Array, "b"], num_classes: int
) -> Float[Array, "b"]:
    """The losses, but NaN in value and gradient where a label is not in [0, v).

    Indexing counts negative labels from the last class, and a one-hot vector has no 1:
    what is computed then looks like a loss.
    """
    is_class = (labels >= 0) & (labels < num_classes)
    return losses * jnp.where(is_class, 1, jnp.nan).astype(losses.dtype)


class TargetLoss(Loss):
    """A loss of the student and the targets, `batch["labels"]`, without a teacher.

    In a mix it is averaged over the examples of a batch whose label is not hidden, and
    0 where there is none. Subclasses are frozen dataclasses that define `__call__`.
    """

    @property
    def needs_teacher(self) -> bool:
        return False

    @property
    def reads_labels(self) -> bool:
        return True

    @abc.abstractmethod
    def __call__(
        self, student: Float[Array, "b v"], targets: Array, *, where: Any = None
    ) -> Float[Array, "b"]:
        """Loss of every example, 0 where `where` is False."""

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        del params, teacher
        return self(student.logits, batch["labels"], where=batch["mask"])


@dataclasses.dataclass(frozen=True)
class CrossEntropy(TargetLoss):
    """Cross-entropy of the student with the labels.

        loss_i = -log softmax(s_i)[y_i]

    Reads `batch["labels"]` [b], integers in [0, v); nats per example. Any other label,
    such as the -1 of an example without, gives NaN, and so does its gradient: what
    leaves an example out is `batch["mask"]`, and labels on masked rows may be anything.
    """

    name = "ce"
    row_by_row = True

    def __call__(
        self, student: Float[Array, "b v"], labels: Int[Array, "b"], *, where=None
    ) -> Float[Array, "b"]:
        student = student.astype(jnp.promote_types(student.dtype, jnp.float32))
        if where is not None:
            student = jnp.where(where[:, None], student, 0)
            labels = jnp.where(where, labels, 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(student, labels)
        losses = nan_without_class(losses, labels, student.shape[-1])
        return losses if where is None else jnp.where(where, losses, 0)


@dataclasses.dataclass(frozen=True)
class SquaredError(TargetLoss):
    """Squared distance of the student's only output from the target, a number.

        loss_i = (s_i - y_i)^2

    Reads `batch["labels"]` [b]; in squared units of the target, per example.
    """

    name = "squared_error"

    @property
    def reads_classes(self) -> bool:
        return False

    def __call__(
        self, student: Float[Array, "b 1"], targets: Float[Array, "b"], *, where=None
    ) -> Float[Array, "b"]:
        dtype = jnp.promote_types(student.dtype, jnp.float32)
        differences = student[:, 0].astype(dtype) - targets
        if where is not None:
            differences = jnp.where(where, differences, 0)
        return jnp.square(differences)
