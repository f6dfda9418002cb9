"""Relational distillation: distances and angles among the examples of a batch."""

import dataclasses

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from kd.features.feature import VectorLoss
from kd.features.norms import (
    distances,
    gram,
    over_rows,
    pairs,
    row_mean,
    scaled,
    unit,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RKDDistance(VectorLoss):
    """Huber loss on the distances between examples, relative to their mean.

        D_ij = |s_i - s_j| / mean,  E_ij = |t_i - t_j| / mean
        losses_i = 1/m sum_j huber(D_ij - E_ij)

    over the m examples of a batch, each mean over its positive distances; huber(x) is
    x^2 / 2 up to 1 and |x| - 1/2 beyond. No unit. Couples the examples.

    Source: park2019rkd, who weigh it 25, `RKDAngle` 50.
    """

    name = "rkd_distance"

    def rows(self, params, student, teacher, labels, where):
        del params, labels
        ours, theirs = _relative(student, where), _relative(teacher, where)
        return row_mean(optax.losses.huber_loss(ours, theirs), where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RKDAngle(VectorLoss):
    """Huber loss on the angles that pairs of examples subtend at a third.

        A_ijk = cos(s_j - s_i, s_k - s_i),  B_ijk = cos(t_j - t_i, t_k - t_i)
        losses_i = 1/m^2 sum_jk huber(A_ijk - B_ijk)

    over the m examples of a batch, degenerate triplets giving 0; no unit. Couples the
    examples, and takes time m^3, but memory m^2 only.

    Source: park2019rkd.
    """

    name = "rkd_angle"

    def rows(self, params, student, teacher, labels, where):
        del params, labels
        both = pairs(where)

        def at(s, t):
            ours, theirs = gram(unit(student - s)), gram(unit(teacher - t))
            return jnp.sum(optax.losses.huber_loss(ours, theirs), where=both)

        return over_rows(at, student, teacher) / jnp.maximum(jnp.sum(both), 1)


def _relative(
    features: Float[Array, "b d"], where: Bool[Array, "b"]
) -> Float[Array, "b b"]:
    found = jnp.where(pairs(where), distances(features), 0)
    found, _ = scaled(found, axis=None)  # so that their sum does not overflow
    mean = jnp.sum(found) / jnp.maximum(jnp.sum(found > 0), 1)
    return found / jnp.where(mean > 0, mean, 1)
