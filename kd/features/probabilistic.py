"""Probabilistic knowledge transfer: who is whose neighbour in a batch."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd.features.feature import VectorLoss
from kd.features.norms import distances, gram, pairs, unit

_LEAST = 1e-7  # Of a cosine similarity, whose logarithm must be finite.


@dataclasses.dataclass(frozen=True, kw_only=True)
class PKT(VectorLoss):
    """Divergence of the examples' distributions over their neighbours.

    A kernel makes similarities, and each row of them a distribution over the batch:
    p_ij of the student, q_ij of the teacher.

        cosine      (1 + cos(x, y)) / 2
        student_t   1 / (1 + sqrt(|x - y|^2 + 1e-6))

        kl          losses_i = sum_j q_ij (log q_ij - log p_ij)
        jeffreys    losses_i = sum_j (q_ij - p_ij) (log q_ij - log p_ij)

    Nats per example. An example is its own neighbour too. Couples the examples. The
    cosine does not see the scale of the features, student_t does.

    Args:
        student_layer: which of the student's layers.
        teacher_layer: which of the teacher's.
        read: how positions become a vector: "mean", "first" or "all".
        kernel: "cosine", "student_t", or "both" for the sum of the two losses.
        divergence: "kl" or "jeffreys".

    Source: passalis2018pkt, with the defaults; "both" with "jeffreys" is the combined
    loss of passalis2020heterogeneous. Their codes take the mean over all pairs, so 1/m
    of this for m examples, and add small numbers to norms and ratios.
    """

    name = "pkt"
    kernel: Literal["cosine", "student_t", "both"] = "cosine"
    divergence: Literal["kl", "jeffreys"] = "kl"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel not in ("cosine", "student_t", "both"):
            raise ValueError(
                f'kernel is "cosine", "student_t" or "both", got {self.kernel!r}'
            )
        if self.divergence not in ("kl", "jeffreys"):
            raise ValueError(
                f'divergence is "kl" or "jeffreys", got {self.divergence!r}'
            )

    def rows(self, params, student, teacher, labels, where):
        del params, labels
        losses = jnp.zeros(len(student), student.dtype)
        for name, kernel in (("cosine", _cosine), ("student_t", _student_t)):
            if self.kernel in (name, "both"):
                p = _neighbours(kernel(student), where)
                q = _neighbours(kernel(teacher), where)
                losses += self._divergence(p, q, where)
        return losses

    def _divergence(self, p, q, where):
        both = pairs(where)
        gaps = jnp.log(jnp.where(both, q, 1)) - jnp.log(jnp.where(both, p, 1))
        weights = q if self.divergence == "kl" else q - p
        return jnp.sum(weights * gaps, axis=1, where=both)


def _cosine(features: Float[Array, "b d"]) -> Float[Array, "b b"]:
    return jnp.maximum((1 + gram(unit(features))) / 2, _LEAST)


def _student_t(features: Float[Array, "b d"]) -> Float[Array, "b b"]:
    # As a length in one more dimension, which cannot overflow.
    apart = distances(features)
    return 1 / (1 + jnp.hypot(apart, 1e-3))


def _neighbours(
    similarity: Float[Array, "b b"], where: Bool[Array, "b"]
) -> Float[Array, "b b"]:
    similarity = jnp.where(pairs(where), similarity, 0)
    total = jnp.sum(similarity, axis=1, keepdims=True)
    return similarity / jnp.where(total > 0, total, 1)
