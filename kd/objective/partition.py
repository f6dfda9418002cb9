"""Losses on predictions of which some classes are taken for one.

Of a teacher whose largest logits alone are known, with the sum of all others
(`kd.types.TopLogits`), predictions are distributions over k + 1 classes, and those of
the student are made so, too: what the two are compared by stays a divergence. Taking
classes together adds nothing, so it is at most the divergence of the full predictions
(the data processing inequality), and equal to it where one class is left.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kd.types import Batch, Outputs

if TYPE_CHECKING:
    from kd.objective.loss import Loss


def taken_together(
    loss: "Loss", student: Outputs, teacher: Outputs | None, batch: Batch
) -> tuple[Outputs, Outputs | None]:
    """What a loss compares: both as they are, unless the teacher's tail is one class.

    Args:
        loss: that compares them. Its `tail_temperature` says how classes add up.
        student: outputs of the student.
        teacher: of the teacher, or None.
        batch: with the masks that the loss reads: what is masked is emptied first.

    Raises:
        ValueError: the loss needs every class by itself.
    """
    if teacher is None or teacher.top is None or not loss.needs_teacher:
        return student, teacher
    temperature = loss.tail_temperature
    if temperature is None:
        raise ValueError(
            f"{loss.name} needs the logits of all classes, and the teacher's largest "
            "are known alone"
        )
    where = batch["mask"]
    if loss.of_tokens:
        where = batch["prediction_mask"] & where[:, None]
    ours = largest_and_rest(student.logits, teacher.top.ids, temperature, where)
    return Outputs(ours), Outputs(teacher.top.logits(temperature))


def largest_and_rest(
    logits: Float[Array, "*n v"],
    ids: Int[Array, "*n k"],
    temperature: float,
    where: Bool[Array, "*n"],
) -> Float[Array, "*n k+1"]:
    """The logits of some classes, and one of all others together.

        z = (s_i for i in ids, tau log sum_(i not in ids) exp(s_i / tau))

    -inf is a class ruled out, and so is the last where there are no others.

    Args:
        logits: s.
        ids: of every prediction, all different.
        temperature: tau, at which the others add up.
        where: False of predictions that do not count, whatever they hold.
    """
    exact = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    exact = jnp.where(where[..., None], exact, 0)
    chosen = jnp.take_along_axis(exact, ids, axis=-1)
    is_chosen = jnp.put_along_axis(
        jnp.zeros(exact.shape, bool), ids, True, axis=-1, inplace=False
    )
    others = jnp.where(is_chosen, -jnp.inf, exact)
    largest = jnp.max(jax.lax.stop_gradient(others), axis=-1, keepdims=True)
    possible = largest > -jnp.inf
    largest = jnp.where(possible, largest, 0)
    total = jnp.sum(
        jnp.exp((others - largest) / temperature), axis=-1, keepdims=True
    )  # At least 1, or 0 where none is possible, whose logarithm has no gradient.
    rest = largest + temperature * jnp.log(jnp.where(possible, total, 1))
    rest = jnp.where(possible, rest, -jnp.inf)
    return jnp.concatenate([chosen, rest], axis=-1)
