"""What every divergence between student and teacher logits has in common.

Two types, one for losses that also look at the labels. Each does once what every
loss would have to remember:

* the teacher is a constant: no gradient flows into it;
* half-precision logits are lifted to float32 before anything else;
* masked rows are emptied before the non-linearity, so that whatever they hold, NaN
  included, reaches neither the value nor the gradient.

A divergence that couples the examples of a batch has the same type as a pointwise
one: entry `i` is the share of example `i`, the mean is the loss.
"""

import abc

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kd.objective import Loss, nan_without_class
from kd.types import Batch, Metrics, Outputs, Params


class Divergence(Loss):
    """How far the student's predictions are from the teacher's, row by row.

    Subclasses are frozen dataclasses that define `rows`.
    """

    def __call__(
        self,
        student: Float[Array, "b v"],
        teacher: Float[Array, "b v"],
        *,
        where: Bool[Array, "b"] | None = None,
    ) -> Float[Array, "b"]:
        """Divergence of every row.

        Args:
            student: logits, any float dtype.
            teacher: logits of the same shape.
            where: True on the rows to keep; the others give 0 and take no part.

        Returns:
            One value per row, in float32 (float64 if the logits are).

        Raises:
            ValueError: the shapes of student and teacher differ.
        """
        return self._call(student, teacher, where)[0]

    def _call(self, student, teacher, where):
        student, teacher = _prepare(type(self).__name__, student, teacher, where)
        losses, metrics = self.rows_with_metrics(student, teacher, where)
        return losses if where is None else jnp.where(where, losses, 0), metrics

    def rows_with_metrics(
        self,
        student: Float[Array, "b v"],
        teacher: Float[Array, "b v"],
        where: Bool[Array, "b"] | None,
    ) -> tuple[Float[Array, "b"], Metrics]:
        """`rows`, and scalars to watch; none unless a subclass has some."""
        return self.rows(student, teacher, where), {}

    @abc.abstractmethod
    def rows(
        self,
        student: Float[Array, "b v"],
        teacher: Float[Array, "b v"],
        where: Bool[Array, "b"] | None,
    ) -> Float[Array, "b"]:
        """The formula, on logits that `__call__` has prepared."""

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        return self.per_example_with_metrics(params, student, teacher, batch)[0]

    def per_example_with_metrics(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[Float[Array, "b"], Metrics]:
        del params
        assert teacher is not None
        return self._call(student.logits, teacher.logits, batch["mask"])


class LabelledDivergence(Loss):
    """A divergence that treats the labelled class in its own way.

    Subclasses are frozen dataclasses that define `rows`. In a mix the labels are
    `batch["labels"]`, and examples whose label is hidden take no part.
    """

    @property
    def reads_labels(self) -> bool:
        return True

    def __call__(
        self,
        student: Float[Array, "b v"],
        teacher: Float[Array, "b v"],
        labels: Int[Array, "b"],
        *,
        where: Bool[Array, "b"] | None = None,
    ) -> Float[Array, "b"]:
        """Divergence of every row.

        Args:
            student: logits, any float dtype.
            teacher: logits of the same shape.
            labels: class of every row, in [0, v); anything on masked rows. On others
                what is out of range gives NaN.
            where: True on the rows to keep; the others give 0 and take no part.

        Returns:
            One value per row, in float32 (float64 if the logits are).

        Raises:
            ValueError: the shapes of student and teacher differ.
        """
        student, teacher = _prepare(type(self).__name__, student, teacher, where)
        if where is not None:
            labels = jnp.where(where, labels, 0)
        losses = self.rows(student, teacher, labels, where)
        losses = nan_without_class(losses, labels, student.shape[-1])
        return losses if where is None else jnp.where(where, losses, 0)

    @abc.abstractmethod
    def rows(
        self,
        student: Float[Array, "b v"],
        teacher: Float[Array, "b v"],
        labels: Int[Array, "b"],
        where: Bool[Array, "b"] | None,
    ) -> Float[Array, "b"]:
        """The formula, on logits and labels that `__call__` has prepared."""

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        del params
        assert teacher is not None
        return self(
            student.logits, teacher.logits, batch["labels"], where=batch["mask"]
        )


def kept_rows(
    where: Bool[Array, "b"] | None, like: Float[Array, "b *v"]
) -> Float[Array, "b"]:
    """1 on the rows that count and 0 on masked ones, for sums over a batch."""
    if where is None:
        return jnp.ones(len(like), like.dtype)
    return where.astype(like.dtype)


def check_same_classes(
    name: str, student: tuple[int, ...], teacher: tuple[int, ...]
) -> None:
    """Raises ValueError unless these are shapes [b, v] of logits, and the same."""
    if student != teacher or len(student) != 2:
        others = (
            "; ULD, MultiLevelOT and the losses of kd.features need no shared classes"
            if student[:-1] == teacher[:-1]
            else ""
        )
        raise ValueError(
            f"{name} compares two [b, v] arrays of logits over the same classes, got "
            f"student {student}, teacher {teacher}{others}"
        )


def _prepare(
    name: str,
    student: Float[Array, "..."],
    teacher: Float[Array, "..."],
    where: Bool[Array, "b"] | None,
) -> tuple[Float[Array, "b v"], Float[Array, "b v"]]:
    check_same_classes(name, student.shape, teacher.shape)
    dtype = jnp.promote_types(
        jnp.promote_types(student.dtype, teacher.dtype), jnp.float32
    )
    student = student.astype(dtype)
    teacher = jax.lax.stop_gradient(teacher.astype(dtype))
    if where is not None:
        student = jnp.where(where[:, None], student, 0)
        teacher = jnp.where(where[:, None], teacher, 0)
    return student, teacher
