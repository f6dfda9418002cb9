"""Distance correlation: dependence of features of any two widths."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd.features.feature import VectorLoss
from kd.features.norms import distances, norm, pairs, scaled


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistanceCorrelation(VectorLoss):
    """One minus the squared distance correlation of student and teacher.

        A, B = distances of all pairs of examples, of student and of teacher, less the
               means of their rows and columns, plus the mean of all
        loss = 1 - <A, B> / (|A| |B|)

    of which every example has an equal share; between 0 and 1, no unit. 0 where the
    distances agree up to a factor, 1 where those of one side are all equal. Couples the
    examples.

    Source: ding2023east; the biased estimate of szekely2007dcor, whose root
    is what they call distance correlation. The code of the former adds 1e-12 to squared
    distances and 1e-9 under the root, and takes the mean over time steps of the loss
    of each.
    """

    name = "distance_correlation"

    def rows(self, params, student, teacher, labels, where):
        del params, labels
        ours = _double_centred(student, where).reshape(-1)
        theirs = _double_centred(teacher, where).reshape(-1)
        size = norm(ours) * norm(theirs)
        correlation = jnp.sum(ours * theirs) / jnp.where(size > 0, size, 1)
        return jnp.full(len(student), 1 - correlation)


def _double_centred(
    features: Float[Array, "b d"], where: Bool[Array, "b"]
) -> Float[Array, "b b"]:
    both = pairs(where)
    apart = jnp.where(both, distances(features), 0)
    apart, _ = scaled(apart, axis=None)  # so that their sum does not overflow
    count = jnp.maximum(jnp.sum(where), 1)
    means = jnp.sum(apart, axis=1) / count
    mean = jnp.sum(means) / count
    return jnp.where(both, apart - means[:, None] - means[None] + mean, 0)
