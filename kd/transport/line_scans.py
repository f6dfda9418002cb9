"""Sums over the sites of a long line, by recurrences.

From one site to the next everything collected so far shrinks by the same factor, so
each sum is a first-order recurrence: time and memory grow with the number of sites,
where the matrix exp(-|t_k - t_j|) grows with its square. No factor exceeds 1: nothing
can overflow, and underflow is the true 0.

A recurrence is sequential. Therefore the sites are cut into blocks; all blocks advance
together, one site at a time, and then one recurrence over the blocks passes on what
each leaves to the next. Arrays are [r, c]: column c is a block, and its r rows are
neighbours on the line.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class _Way(NamedTuple):
    """The way to every site from one side: distances, or what remains after them."""

    step: Float[Array, "r c"]
    """From the site before, in the direction of travel."""
    reach: Float[Array, "r c"]
    """From the last site of the block before."""


class Distances(NamedTuple):
    """The way to every site of a line from both sides."""

    left: _Way
    right: _Way

    @classmethod
    def of(cls, sites: Float[Array, "r c"], slope: float) -> "Distances":
        """slope |t_k - t_j| for sorted sites t: differences of neighbours, added up."""
        # Neighbours are subtracted first, which rounds nothing when they are close.
        left = slope * (sites - _before(sites).step)
        right = slope * (_after(sites).step - sites)
        return cls(
            _Way(left, jnp.cumsum(left, axis=0)),
            _Way(right, jnp.cumsum(right[::-1], axis=0)[::-1]),
        )

    def decays(self, unit: Float[Array, "r c"] | None = None) -> "Decays":
        """exp(-distance), times unit of the origin / unit here if units are given.

        Args:
            unit: logarithms of the units in which sums are kept, one per site.
        """
        if unit is None:
            return Decays(*jax.tree.map(lambda distance: jnp.exp(-distance), self))
        origins = Distances(_before(unit), _after(unit))
        return Decays(
            *jax.tree.map(
                lambda distance, origin: jnp.exp(origin - unit - distance),
                self,
                origins,
            )
        )

    def largest(self, values: Float[Array, "r c"]) -> Float[Array, "r c"]:
        """max_j (values_j - |t_k - t_j|), j = k included; values may be -inf."""
        away = jax.tree.map(jnp.negative, self)
        left, right = _arriving(away.left, away.right, values, _MAX)
        return jnp.maximum(values, jnp.maximum(left, right))


class Decays(NamedTuple):
    """What remains on the way to every site of a line from both sides."""

    left: _Way
    right: _Way

    def sums(
        self, weights: Float[Array, "r c"]
    ) -> tuple[Float[Array, "r c"], Float[Array, "r c"]]:
        """Of all weights as they arrive at every site, and of left minus right."""
        left, right = _arriving(self.left, self.right, weights, _SUM)
        return left + weights + right, left - right


def num_blocks(num_sites: int) -> int:
    """Into how many blocks to cut a line."""
    # Multiples of 16 blocks fill the vector registers of every processor. Four times
    # as many blocks as each has sites: a step over sites takes longer than one over
    # blocks.
    return 16 * max(1, round(2 * num_sites**0.5 / 16))


def _before(values: Float[Array, "r c"]) -> _Way:
    """Values at the origins of the ways from the left; the first is its own."""
    ends = jnp.concatenate([values[0, :1], values[-1, :-1]])
    step = jnp.concatenate([ends[None], values[:-1]])
    return _Way(step, jnp.broadcast_to(ends, values.shape))


def _after(values: Float[Array, "r c"]) -> _Way:
    step, reach = _before(values[::-1, ::-1])
    return _Way(step[::-1, ::-1], reach[::-1, ::-1])


class _Semiring(NamedTuple):
    plus: Callable
    times: Callable
    zero: float


_SUM = _Semiring(jnp.add, jnp.multiply, 0.0)
_MAX = _Semiring(jnp.maximum, jnp.add, -jnp.inf)


def _arriving(
    left: _Way, right: _Way, weights: Float[Array, "r c"], semiring: _Semiring
) -> tuple[Float[Array, "r c"], Float[Array, "r c"]]:
    plus, times, zero = semiring

    def pass_site(total, site):
        step, weight = site
        arriving = times(step, total)
        return plus(arriving, weight), arriving

    def pass_block(total, block):
        across, own = block
        return plus(times(across, total), own), total

    def travel(way: _Way, across: Float[Array, "c"], reverse: bool):
        empty = jnp.full_like(weights[0], zero)
        own, arriving = jax.lax.scan(
            pass_site, empty, (way.step, weights), reverse=reverse
        )
        _, carried = jax.lax.scan(pass_block, empty[0], (across, own), reverse=reverse)
        return plus(arriving, times(way.reach, carried))

    return (
        travel(left, left.reach[-1], reverse=False),
        travel(right, right.reach[0], reverse=True),
    )
