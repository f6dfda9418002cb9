"""What every loss between hidden states of a student and of a teacher has in common.

Two types: of one vector an example, and of one vector a position (token, point of an
image). How these come out of a network's layers is the business of
`kd.features.layers`. Each type does once what every loss would have to remember:

* the teacher is a constant: no gradient flows into it;
* half-precision features are lifted to float32 before anything else;
* masked rows are emptied before the non-linearity, so that whatever they hold, NaN
  included, reaches neither the value nor the gradient.

A loss that couples the examples of a batch has the same type as a pointwise one: entry
`i` is the share of example `i`, the mean is the loss. Layers are counted from 0, the
first of `Outputs.hidden` (of text the embedding output); -1 is the last.
"""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from kd.features import layers
from kd.objective import Loss
from kd.types import Batch, Embedding, Outputs, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureLoss(Loss):
    """A loss between one layer of the student and one of the teacher.

    Args:
        student_layer: which of the student's layers.
        teacher_layer: which of the teacher's.
    """

    student_layer: int = -1
    teacher_layer: int = -1

    @property
    def reads_hidden(self) -> bool:
        return True

    @property
    def reads_logits(self) -> bool:
        return False

    def parameters(
        self,
        key: PRNGKeyArray,
        student_width: int,
        teacher_width: int,
        num_classes: int,
    ) -> Params:
        """Makes what the loss learns itself; () where that is nothing.

        Args:
            key: of its randomness.
            student_width: of the student's vectors.
            teacher_width: of the teacher's.
            num_classes: of the task.
        """
        del key, student_width, teacher_width, num_classes
        return ()

    def _chosen(self, student: Outputs, teacher: Outputs | None) -> tuple[Any, Any]:
        assert teacher is not None
        return (
            layers.layer("student", student.hidden, self.student_layer),
            layers.layer("teacher", teacher.hidden, self.teacher_layer),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VectorLoss(FeatureLoss):
    """A loss of one vector an example.

    Subclasses are frozen dataclasses that define `rows`.

    Args:
        student_layer: which of the student's layers.
        teacher_layer: which of the teacher's.
        read: how positions become a vector: "mean", "first" or "all".
    """

    read: layers.Read = "mean"

    def __post_init__(self) -> None:
        if self.read not in ("mean", "first", "all"):
            raise ValueError(f'read is "mean", "first" or "all", got {self.read!r}')

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        # All positions of every example would be the whole of the hidden states.
        return () if self.read == "all" else (Embedding(self.teacher_layer, self.read),)

    def __call__(
        self,
        student: Float[Array, "b d"],
        teacher: Float[Array, "b e"],
        *,
        params: Params = (),
        labels: Int[Array, "b"] | None = None,
        where: Bool[Array, "b"] | None = None,
    ) -> Float[Array, "b"]:
        """Loss of every row.

        Args:
            student: vectors, any float dtype.
            teacher: vectors of as many rows, of any width.
            params: what the loss learns itself, as `parameters` made it.
            labels: class of every row, where the loss reads them.
            where: True on the rows to keep; the others give 0 and take no part.

        Returns:
            One value per row, in float32 (float64 if the features are).

        Raises:
            Misfit: the shapes do not fit.
        """
        if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher):
            raise layers.Misfit(
                f"{type(self).__name__} compares as many vectors [b, d] of a student "
                f"as [b, e] of a teacher, got {student.shape} and {teacher.shape}"
            )
        kept = jnp.ones(len(student), bool) if where is None else where
        student, teacher = _prepared(student, teacher, kept)
        if labels is not None:
            labels = jnp.where(kept, labels, 0)
        return jnp.where(kept, self.rows(params, student, teacher, labels, kept), 0)

    @abc.abstractmethod
    def rows(
        self,
        params: Params,
        student: Float[Array, "b d"],
        teacher: Float[Array, "b e"],
        labels: Int[Array, "b"] | None,
        where: Bool[Array, "b"],
    ) -> Float[Array, "b"]:
        """The formula, on vectors that `__call__` has prepared."""

    def init(
        self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None
    ) -> Params:
        ours, theirs = (_width(x, self.read) for x in self._chosen(student, teacher))
        return self.parameters(key, ours, theirs, student.logits.shape[-1])

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        ours, theirs = self._vectors(student, teacher, batch)
        labels = batch.get("labels")
        return self(ours, theirs, params=params, labels=labels, where=batch["mask"])

    def _vectors(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[Float[Array, "b d"], Float[Array, "b e"]]:
        ours, theirs = self._chosen(student, teacher)
        return (
            layers.vectors(ours, batch, self.read),
            layers.vectors(theirs, batch, self.read),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PositionLoss(FeatureLoss):
    """A loss of one vector a position, student and teacher having the same positions.

    Of feature maps [b, h, w, c] the larger is averaged down to the smaller first.
    Subclasses are frozen dataclasses that define `rows`.
    """

    def __call__(
        self,
        student: Float[Array, "b p d"],
        teacher: Float[Array, "b p e"],
        *,
        params: Params = (),
        where: Bool[Array, "b p"] | None = None,
    ) -> Float[Array, "b"]:
        """Loss of every row.

        Args:
            student: vectors of all positions, any float dtype.
            teacher: vectors of the same positions, of any width.
            params: what the loss learns itself, as `parameters` made it.
            where: True on the positions to keep; the others take no part, and a row
                without any gives 0.

        Returns:
            One value per row, in float32 (float64 if the features are).

        Raises:
            Misfit: the shapes do not fit.
        """
        if (
            student.ndim != 3
            or teacher.ndim != 3
            or (student.shape[:2] != teacher.shape[:2])
        ):
            raise layers.Misfit(
                f"{type(self).__name__} compares vectors [b, p, d] and [b, p, e] of "
                "the same positions, got student "
                f"{student.shape}, teacher {teacher.shape}"
            )
        kept = jnp.ones(student.shape[:2], bool) if where is None else where
        student, teacher = _prepared(student, teacher, kept)
        losses = self.rows(params, student, teacher, kept)
        return jnp.where(jnp.any(kept, axis=1), losses, 0)

    @abc.abstractmethod
    def rows(
        self,
        params: Params,
        student: Float[Array, "b p d"],
        teacher: Float[Array, "b p e"],
        where: Bool[Array, "b p"],
    ) -> Float[Array, "b"]:
        """The formula, on positions that `__call__` has prepared."""

    def init(
        self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None
    ) -> Params:
        ours, theirs = (x.shape[-1] for x in self._chosen(student, teacher))
        return self.parameters(key, ours, theirs, student.logits.shape[-1])

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        ours, theirs = layers.same_resolution(*self._chosen(student, teacher))
        ours, where = layers.positions(ours, batch)
        theirs, _ = layers.positions(theirs, batch)
        return self(ours, theirs, params=params, where=where)


def position_mean(
    values: Float[Array, "b p"], where: Bool[Array, "b p"]
) -> Float[Array, "b"]:
    """Mean over every row's kept positions; 0 where there is none."""
    count = jnp.maximum(jnp.sum(where, axis=1), 1)
    return jnp.sum(values, axis=1, where=where) / count


def _width(states: Any, read: layers.Read) -> int:
    if read == "all":
        return states.size // len(states)
    return states.shape[-1]


def _prepared(
    student: Float[Array, "..."],
    teacher: Float[Array, "..."],
    where: Bool[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    dtype = jnp.result_type(layers.lifted(student), layers.lifted(teacher))
    student = jnp.where(where[..., None], student.astype(dtype), 0)
    teacher = jnp.where(where[..., None], teacher.astype(dtype), 0)
    return student, jax.lax.stop_gradient(teacher)
