"""Mixtures of forward and reverse KL whose weights follow the predictions."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd.divergences.divergence import Divergence
from kd.divergences.softened import Rescaled, cross_entropy, relative_entropy


@dataclasses.dataclass(frozen=True)
class AdaptiveKL(Rescaled, Divergence):
    """Forward KL for a gap at the teacher's head, reverse KL for one at its tail.

        head = the most probable classes of the teacher, of mass at most `head_mass`
        g_head, g_tail = sum_v |p_iv - q_iv| over the head, over the tail
        losses_i = temperature^2 (g_head KL(q_i || p_i) + g_tail KL(p_i || q_i))
                   / (g_head + g_tail)

    Nats per example. The first class is always of the head; the class whose mass
    crosses `head_mass` is of the tail. No gradient flows through the gaps.

    Args:
        head_mass: mass of the teacher's head, between 0 and 1 (mu in the paper).

    Source: wu2025akl. The code of DSKD sorts the other way round and
    so puts the crossing class into the head.
    """

    name = "akl"
    row_by_row = True
    head_mass: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.head_mass < 1:
            raise ValueError(
                f"head_mass must lie between 0 and 1, got {self.head_mass}"
            )

    def rows(self, student, teacher, where):
        del where
        log_p, log_q = self.soften(student), self.soften(teacher)
        p, q = jax.lax.stop_gradient(jnp.exp(log_p)), jnp.exp(log_q)
        gap = jnp.abs(p - q)
        head_gap = jnp.sum(gap, axis=-1, where=_head(q, self.head_mass))
        share = head_gap / _one_if_zero(jnp.sum(gap, axis=-1))
        forward = relative_entropy(log_q, log_p)
        reverse = relative_entropy(log_p, log_q)
        # A direction without a share may be infinite.
        return self.factor * (
            jnp.where(share > 0, share * forward, 0)
            + jnp.where(share < 1, (1 - share) * reverse, 0)
        )


@dataclasses.dataclass(frozen=True)
class BalancedKL(Rescaled, Divergence):
    """Forward plus reverse KL, one emphasised where the student is the sharper.

        gap = H(q_i) - H(p_i)                       positive: the student is sharper
        forward, reverse = (emphasis, 1) if gap > 0 else (1, emphasis)
        losses_i = temperature^2 (forward KL(q_i || p_i) + reverse KL(p_i || q_i))

    Nats per example. The forward KL spreads a student that is too sure of itself,
    the reverse KL sharpens one that is too unsure. No gradient flows through the
    choice.

    Args:
        emphasis: weight of the emphasised direction, positive.
        sharper: direction that is emphasised where the student is the sharper.

    Source: amara2022bdkd, the student's loss. No code was published with it, and
    the value of the emphasis and its direction are this project's reading.
    """

    name = "bdkd"
    row_by_row = True
    emphasis: float = 2.0
    sharper: Literal["forward", "reverse"] = "forward"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.emphasis > 0:
            raise ValueError(f"emphasis must be positive, got {self.emphasis}")
        if self.sharper not in ("forward", "reverse"):
            raise ValueError(f'sharper is "forward" or "reverse", got {self.sharper!r}')

    def rows(self, student, teacher, where):
        del where
        log_p, log_q = self.soften(student), self.soften(teacher)
        student_is_sharper = cross_entropy(log_q, log_q) > cross_entropy(log_p, log_p)
        emphasise_forward = student_is_sharper == (self.sharper == "forward")
        forward = jnp.where(emphasise_forward, self.emphasis, 1.0)
        reverse = jnp.where(emphasise_forward, 1.0, self.emphasis)
        return self.factor * (
            forward * relative_entropy(log_q, log_p)
            + reverse * relative_entropy(log_p, log_q)
        )


def _head(q: Float[Array, "b v"], mass: float) -> Bool[Array, "b v"]:
    order = jnp.argsort(-q, axis=-1)
    cumulative = jnp.cumsum(jnp.take_along_axis(q, order, axis=-1), axis=-1)
    in_head = (cumulative <= mass).at[:, 0].set(True)
    return jnp.take_along_axis(in_head, jnp.argsort(order, axis=-1), axis=-1)


def _one_if_zero(values: Array) -> Array:
    return jnp.where(values > 0, values, 1)
