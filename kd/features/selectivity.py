"""Neuron selectivity: which positions the channels of a network respond to."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.features.feature import PositionLoss
from kd.features.norms import gram, unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class NST(PositionLoss):
    """Squared maximum mean discrepancy of the channels' patterns of positions.

    With u_c the pattern of channel c of the student over the positions of example i,
    at length 1, v_c of the teacher, and the kernel k(x, y) = <x, y>^2,

        losses_i = mean_cc' k(u_c, u_c') - 2 mean_cc' k(u_c, v_c') + mean_cc' k(v_c, v_c')
                 = |mean_c u_c u_c' - mean_c v_c v_c'|_F^2

    between 0 and 2, no unit; the second line is what is computed. 0 where the patterns
    span the positions alike, whatever the widths.

    Source: huang2017nst, with the polynomial kernel of degree 2.
    """  # noqa: E501

    name = "nst"

    def rows(self, params, student, teacher, where):
        del params, where  # Positions that do not count are 0 in all patterns.
        gaps = _second_moment(student) - _second_moment(teacher)
        return jnp.sum(jnp.square(gaps), axis=(1, 2))


def _second_moment(features: Float[Array, "b p d"]) -> Float[Array, "b p p"]:
    patterns = unit(jnp.swapaxes(features, 1, 2))
    return gram(jnp.swapaxes(patterns, 1, 2)) / features.shape[-1]
