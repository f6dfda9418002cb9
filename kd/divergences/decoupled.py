"""KL taken apart at the labelled class: is it that one, and if not, which.

    KL(q || p) = TCKD + (1 - q_y) NCKD
    TCKD = KL((q_y, 1 - q_y) || (p_y, 1 - p_y))             of the target class y
    NCKD = KL(q without y || p without y)                   both renormalised

NCKD is 0 where the teacher gives the other classes nothing at all.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kd.divergences.divergence import LabelledDivergence, kept_rows
from kd.divergences.softened import Rescaled, relative_entropy
from kd.objective import OverRows
from kd.objective.chunked import equal_weights, of_rows, rows_at_once
from kd.types import Batch, Head, Outputs, Params, TopLogits


@dataclasses.dataclass(frozen=True)
class DKD(Rescaled, LabelledDivergence):
    """Decoupled distillation: the two parts of KL with weights of their own.

        losses_i = temperature^2 (alpha TCKD_i + beta NCKD_i)

    Nats per example. NCKD is no longer damped where the teacher is sure. Reads
    labels.

    Args:
        alpha: weight of the target-class part, at least 0.
        beta: weight of the non-target part, at least 0.

    Source: zhao2022dkd. The authors' code subtracts 1000 from the target
    logit instead of leaving it out, and warms the loss up over 20 epochs.
    """

    name = "dkd"
    row_by_row = True
    temperature: float = 4.0
    alpha: float = 1.0
    beta: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.alpha, self.beta) < 0:
            raise ValueError(
                f"alpha and beta must be at least 0, got {self.alpha} and {self.beta}"
            )

    def rows(self, student, teacher, labels, where):
        del where
        p = _split(self.soften(student), labels)
        q = _split(self.soften(teacher), labels)
        target, others = (relative_entropy(b, a) for a, b in zip(p, q, strict=True))
        return self.factor * (self.alpha * target + self.beta * others)


@dataclasses.dataclass(frozen=True)
class ATKD(LabelledDivergence):
    """Adaptive teaching: no target part for the rows that the teacher finds easy.

        u_i  = 1 - q_iy                             at temperature 1
        hard = the rows of u_i at least the median of the batch; easy = the others
        losses_i = n alpha NCKD_i / n_easy                         for easy rows
                   n (1 - alpha) (TCKD_i + NCKD_i) / n_hard        for hard rows

    for n rows, so that the mean is alpha times the mean over the easy ones plus
    (1 - alpha) times that over the hard ones. Nats per row. The median is the
    lower of the two in the middle. Coupled by it and by the counts. Reads labels:
    for language models rows are tokens and labels the tokens that come next.

    Args:
        alpha: weight of the easy rows, between 0 and 1.
        reverse: exchange student and teacher in both parts; u stays the teacher's.

    Source: zhong2024atkd; the authors' code, whose TVD and JS are not what they say.
    """

    name = "atkd"
    alpha: float = 0.2
    reverse: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {self.alpha}")

    def rows(self, student, teacher, labels, where):
        weights = self._weights(_uncertainty(teacher, labels), where)
        return _WeightedParts(self.reverse, weights).rows(
            student, teacher, labels, where
        )

    def over_rows(
        self, batch: Batch, student: Head, teacher: Head | TopLogits | None
    ) -> OverRows | None:
        if not isinstance(teacher, Head):
            return None
        # First the number of every row that couples them, of the teacher alone.
        uncertainty = of_rows(
            lambda logits, labels: _uncertainty(
                logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), labels
            ),
            teacher.emptied(batch["mask"]),
            jnp.where(batch["mask"], batch["labels"], 0),
            num_rows=rows_at_once(teacher.num_outputs),
        )
        rows = {**batch, "atkd": self._weights(uncertainty, batch["mask"])}
        weights = equal_weights(batch["mask"])
        return OverRows(_WeightedParts(self.reverse), rows, weights, {})

    def _weights(self, uncertainty, where):
        """Of the target's part and of the others' in every row, [b, 2]."""
        kept = kept_rows(where, uncertainty)
        hard = (uncertainty >= _lower_median(uncertainty, kept)) & (kept > 0)
        easy = ~hard & (kept > 0)
        num_rows = jnp.sum(kept)
        of_hard = (1 - self.alpha) * num_rows / jnp.maximum(jnp.sum(hard), 1)
        of_easy = self.alpha * num_rows / jnp.maximum(jnp.sum(easy), 1)
        of_target = jnp.where(hard, of_hard, 0)
        return jnp.stack([of_target, jnp.where(hard, of_hard, of_easy)], axis=1)


@dataclasses.dataclass(frozen=True)
class _WeightedParts(LabelledDivergence):
    """`ATKD` where it is known what counts for how much.

        losses_i = weights_i1 TCKD_i + weights_i2 NCKD_i

    with weights from `batch["atkd"]` [b, 2] unless they are given.
    """

    name = "atkd"
    row_by_row = True
    reverse: bool
    weights: Any = None

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        known = _WeightedParts(self.reverse, batch["atkd"])
        return LabelledDivergence.per_example(known, params, student, teacher, batch)

    def rows(self, student, teacher, labels, where):
        del where
        p, q = (_split(jax.nn.log_softmax(x), labels) for x in (student, teacher))
        if self.reverse:
            p, q = q, p
        target, others = (relative_entropy(b, a) for a, b in zip(p, q, strict=True))
        of_target, of_others = self.weights.T
        # Where the target does not count its part may be infinite.
        return jnp.where(of_target > 0, of_target * target, 0) + of_others * others


def _uncertainty(
    teacher: Float[Array, "b v"], labels: Int[Array, "b"]
) -> Float[Array, "b"]:
    """1 - q_y of every row."""
    binary, _ = _split(jax.nn.log_softmax(teacher), labels)
    return jnp.exp(binary[:, 1])


def _split(
    log_p: Float[Array, "b v"], labels: Int[Array, "b"]
) -> tuple[Float[Array, "b 2"], Float[Array, "b v"]]:
    """log of (p_y, 1 - p_y), and of p without y, renormalised, -inf at y.

    1 - p_y is summed up from the other classes, exact where p_y rounds to 1.
    """
    is_target = jax.nn.one_hot(labels, log_p.shape[-1], dtype=bool)
    target = jnp.sum(jnp.where(is_target, log_p, 0), axis=-1, keepdims=True)
    others = jnp.where(is_target, -jnp.inf, log_p)
    exist = jnp.any(others > -jnp.inf, axis=-1, keepdims=True)
    # Of nothing at all logsumexp has no finite gradient.
    rest = jax.nn.logsumexp(jnp.where(exist, others, 0), axis=-1, keepdims=True)
    binary = jnp.concatenate([target, jnp.where(exist, rest, -jnp.inf)], axis=-1)
    return binary, others - rest


def _lower_median(
    values: Float[Array, "b"], kept: Float[Array, "b"]
) -> Float[Array, ""]:
    ascending = jnp.sort(jnp.where(kept > 0, values, jnp.inf))
    middle = jnp.maximum(jnp.sum(kept).astype(int) - 1, 0) // 2
    return ascending[middle]
