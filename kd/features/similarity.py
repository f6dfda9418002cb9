"""Similarities of examples: which of a batch activate the network alike."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.divergences.absolute import absolute_difference
from kd.features.feature import VectorLoss
from kd.features.layers import Read
from kd.features.norms import gram, pairs, row_mean, scaled, unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimilarityPreserving(VectorLoss):
    """Squared difference of the inner products of all pairs of examples.

        G_ij = <s_i, s_j>,  H_ij = <t_i, t_j>
        losses_i = 1/m sum_j (G_ij / |G_i| - H_ij / |H_i|)^2

    over the m examples of a batch, G_i being row i; no unit. The mean is that of all
    entries of the matrix, and shrinks with m. Couples the examples.

    Source: tung2019similarity, on the activations of all positions.
    """

    name = "similarity_preserving"
    read: Read = "all"

    def rows(self, params, student, teacher, labels, where):
        del params, labels
        gaps = _profiles(student) - _profiles(teacher)
        return row_mean(jnp.square(gaps), where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineDifference(VectorLoss):
    """Absolute difference of the cosines of all pairs of examples.

        losses_i = 1/m sum_j |cos(s_i, s_j) - cos(t_i, t_j)|

    over the m examples of a batch, between 0 and 2. Where two cosines are equal the
    subgradient 0 is taken. Couples the examples.

    Source: ding2023east, the alternative to `DistanceCorrelation` in their code.
    """

    name = "cosine_difference"

    def rows(self, params, student, teacher, labels, where):
        del params, labels
        # The cosines of an example with itself are 1 on both sides but for rounding.
        others = pairs(where) & ~jnp.eye(len(student), dtype=bool)
        ours, theirs = (jnp.where(others, gram(unit(x)), 0) for x in (student, teacher))
        return row_mean(absolute_difference(ours, theirs), where)


def _profiles(features: Float[Array, "b d"]) -> Float[Array, "b b"]:
    return unit(gram(scaled(features, axis=None)[0]))
