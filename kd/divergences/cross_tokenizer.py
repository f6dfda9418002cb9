"""What losses between models with different tokenizers have in common.

Student and teacher cut one text into different tokens, of different vocabularies, so
neither position j nor class c of the one is that of the other. Their predictions are
compared from the first one of the answer on, the k-th with the k-th.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd.objective import Loss
from kd.types import Batch, Outputs, Params


@dataclasses.dataclass(frozen=True)
class CrossTokenizerLoss(Loss):
    """How far sequences of predictions are from others of other length and classes.

    In a mix, `batch["prediction_mask"]` [b, n] says which predictions of the student
    count and `batch["teacher_prediction_mask"]` [b, m] which of the teacher; without
    the latter both have the former. Position j says whether the logits at j predict
    a token of the answer, so nothing is shifted here.

    Subclasses are frozen dataclasses that define `compare`.
    """

    student_temperature: float = 1.0
    teacher_temperature: float = 1.0
    skip_student_eos: bool = False
    """Leave out the last prediction that counts, as the end of the sequence."""
    skip_teacher_eos: bool = False

    def __post_init__(self) -> None:
        for temperature in (self.student_temperature, self.teacher_temperature):
            if not temperature > 0:
                raise ValueError(f"temperature must be positive, got {temperature}")

    def __call__(
        self,
        student: Float[Array, "b n v"],
        teacher: Float[Array, "b m w"],
        *,
        where: Bool[Array, "b n"] | None = None,
        teacher_where: Bool[Array, "b m"] | None = None,
    ) -> Float[Array, "b"]:
        """The loss of every pair of sequences.

        Args:
            student: logits, any float dtype.
            teacher: logits of as many sequences.
            where: True on the student's predictions that count, all by default.
            teacher_where: likewise the teacher's.

        Returns:
            One value per pair, in float32 (float64 if the logits are); 0 where one of
            the two has no prediction that counts.

        Raises:
            ValueError: shapes that are not those above.
        """
        name = type(self).__name__
        if student.ndim != 3 or teacher.ndim != 3 or len(student) != len(teacher):
            raise ValueError(
                f"{name} compares logits [b, n, v] with others [b, m, w], got student "
                f"{student.shape}, teacher {teacher.shape}"
            )
        dtype = jnp.promote_types(
            jnp.promote_types(student.dtype, teacher.dtype), jnp.float32
        )
        student, kept = _answer(
            student.astype(dtype), where, self.skip_student_eos, f"{name}: where"
        )
        teacher, teacher_kept = _answer(
            jax.lax.stop_gradient(teacher.astype(dtype)),
            teacher_where,
            self.skip_teacher_eos,
            f"{name}: teacher_where",
        )
        losses = self.compare(student, teacher, kept, teacher_kept)
        return jnp.where(kept[:, 0] & teacher_kept[:, 0], losses, 0)

    @property
    def of_tokens(self) -> bool:
        return True

    @abc.abstractmethod
    def compare(
        self,
        student: Float[Array, "b n v"],
        teacher: Float[Array, "b m w"],
        kept: Bool[Array, "b n"],
        teacher_kept: Bool[Array, "b m"],
    ) -> Float[Array, "b"]:
        """The formula, on logits that begin with those that count; 0 after them."""

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        del params
        assert teacher is not None
        where = batch["prediction_mask"]
        teacher_where = batch.get("teacher_prediction_mask", where)
        mask = batch["mask"][:, None]
        return self(
            student.logits,
            teacher.logits,
            where=where & mask,
            teacher_where=teacher_where & mask,
        )


def _answer(logits, where, skip_last, name):
    """The predictions that count, moved to the front, and where they are."""
    if where is None:
        where = jnp.ones(logits.shape[:2], bool)
    if where.shape != logits.shape[:2]:
        raise ValueError(
            f"{name} of shape {where.shape} does not fit logits of shape {logits.shape}"
        )
    if skip_last:
        still_to_come = jnp.cumsum(where[:, ::-1], axis=1)[:, ::-1]
        where &= still_to_come > 1
    order = jnp.argsort(~where, axis=1, stable=True)
    logits = jax.vmap(lambda rows, order: rows[order])(logits, order)
    kept = jnp.arange(where.shape[1]) < jnp.sum(where, axis=1, keepdims=True)
    return jnp.where(kept[..., None], logits, 0), kept
