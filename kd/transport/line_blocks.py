"""Sums over the sites of a short line, by small matrices.

Within a block of neighbours every site takes from every other directly. Blocks pass on
sums: what leaves the end of one enters the start of another through one more matrix,
of blocks. A few thousand products in which no site waits for the one before, where
the matrix of all sites has many times as many and a recurrence (`line_scans`) as many
steps, one after the other.

Arrays are [r, c]: column c is a block, and its r rows are neighbours on the line.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Distances(NamedTuple):
    """Distances between the sites of a line, as far as they are needed."""

    within: Float[Array, "r r c"]
    """From the first to the second site of the same block."""
    between: Float[Array, "c c"]
    """From the end of the first block to the start of the second; 0 unless the first
    lies to the left of the second."""

    @classmethod
    def of(cls, sites: Float[Array, "r c"], slope: float) -> "Distances":
        """slope |t_k - t_j| for sorted sites t."""
        start, end = sites[0], sites[-1]
        return cls(
            slope * jnp.abs(sites[None] - sites[:, None]),
            slope * jnp.where(_to_the_left(start), start[None] - end[:, None], 0),
        )

    def decays(self, unit: Float[Array, "r c"] | None = None) -> "Decays":
        """exp(-distance), times unit of the origin / unit here if units are given.

        Args:
            unit: logarithms of the units in which sums are kept, one per site.
        """
        within, right_to_left = self.within, self.between
        left_to_right = right_to_left
        if unit is not None:
            within += unit[None] - unit[:, None]
            ahead = unit[0][None] - unit[-1][:, None]
            left_to_right += ahead
            right_to_left -= ahead
        exist = _to_the_left(self.between)
        return Decays(
            jnp.exp(-within),
            jnp.where(exist, jnp.exp(-left_to_right), 0),
            jnp.where(exist, jnp.exp(-right_to_left), 0),
        )

    def largest(self, values: Float[Array, "r c"]) -> Float[Array, "r c"]:
        """max_j (values_j - |t_k - t_j|), j = k included; values may be -inf."""
        inside = jnp.max(values[:, None] - self.within, axis=0)
        exist = _to_the_left(self.between)
        from_left = jnp.where(exist, inside[-1][:, None] - self.between, -jnp.inf)
        from_right = jnp.where(exist, inside[0][None] - self.between, -jnp.inf)
        from_outside = jnp.maximum(
            from_left.max(axis=0) - self.within[0],
            from_right.max(axis=1) - self.within[-1],
        )
        return jnp.maximum(inside, from_outside)


class Decays(NamedTuple):
    """What remains of a weight at one place when it arrives at another."""

    within: Float[Array, "r r c"]
    left_to_right: Float[Array, "c c"]
    """From the end of the first block to the start of the second, or 0."""
    right_to_left: Float[Array, "c c"]
    """From the start of the second block to the end of the first, or 0."""

    def sums(
        self, weights: Float[Array, "r c"]
    ) -> tuple[Float[Array, "r c"], Float[Array, "r c"]]:
        """Of all weights as they arrive at every site, and of left minus right."""
        inside = _weighted(self.within, weights)
        with jax.default_matmul_precision("highest"):
            from_left = inside[-1] @ self.left_to_right
            from_right = self.right_to_left @ inside[0]
        from_left = self.within[0] * from_left
        from_right = self.within[-1] * from_right
        row = jnp.arange(len(weights), dtype=weights.dtype)
        sign = jnp.sign(row[None] - row[:, None])[:, :, None]
        total = inside + (from_left + from_right)
        tilt = _weighted(sign * self.within, weights) + (from_left - from_right)
        return total, tilt


def cut(sites: Float[Array, "k"]) -> Float[Array, "r c"]:
    """Sites as blocks of neighbours; the last site is repeated to fill them."""
    # r c^0 products within blocks and c^2 between them are fewest at 2 c^3 = k^2.
    # Multiples of 16 blocks fill the vector registers of every processor.
    num_blocks = 16 * max(1, round((len(sites) ** 2 / 4) ** (1 / 3) / 16))
    length = -(-len(sites) // num_blocks)
    padded = jnp.pad(sites, (0, length * num_blocks - len(sites)), mode="edge")
    return padded.reshape(num_blocks, length).T


def _weighted(decays, weights):
    # Written out, the compiler makes one pass over the result.
    total = decays[0] * weights[0]
    for j in range(1, len(weights)):
        total += decays[j] * weights[j]
    return total


def _to_the_left(blocks):
    """Whether the first block lies to the left of the second, [c, c]."""
    index = jnp.arange(len(blocks))
    return index[:, None] < index[None, :]
