"""Sums over the sites of a short line, by small matrices.

Within a block of neighbours every site takes from every other directly. Blocks pass on
sums: what leaves the end of one enters the start of another through one more matrix,
of blocks. That is a fraction of the products of the matrix of all sites, and none of
them waits for the one before, as the steps of a recurrence do (`line_scans`).

There is no form for logarithms: exponentials are then what takes the time, and
recurrences need fewer. Arrays are [r, c]: column c is a block, and its r rows are
neighbours on the line.
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
    """From the end of the first block to the start of the second, where the first lies
    to the left of the second; elsewhere without meaning."""

    @classmethod
    def of(cls, sites: Float[Array, "r c"], slope: float) -> "Distances":
        """slope |t_k - t_j| for sorted sites t."""
        return cls(
            slope * jnp.abs(sites[None] - sites[:, None]),
            slope * (sites[0][None] - sites[-1][:, None]),
        )

    def decays(self) -> "Decays":
        """exp(-distance)."""
        return Decays(jnp.exp(-self.within), jnp.triu(jnp.exp(-self.between), k=1))


class Decays(NamedTuple):
    """What remains of a weight on these ways, in either direction."""

    within: Float[Array, "r r c"]
    between: Float[Array, "c c"]
    """0 unless the first block lies to the left of the second."""

    def sums(
        self, weights: Float[Array, "r c"]
    ) -> tuple[Float[Array, "r c"], Float[Array, "r c"]]:
        """Of all weights as they arrive at every site, and of left minus right."""
        inside = _weighted(self.within, weights)
        with jax.default_matmul_precision("highest"):
            from_left = inside[-1] @ self.between
            from_right = self.between @ inside[0]
        from_left = self.within[0] * from_left
        from_right = self.within[-1] * from_right
        row = jnp.arange(len(weights), dtype=weights.dtype)
        sign = jnp.sign(row[None] - row[:, None])[:, :, None]
        total = inside + (from_left + from_right)
        tilt = _weighted(sign * self.within, weights) + (from_left - from_right)
        return total, tilt


def num_blocks(num_sites: int) -> int:
    """Into how many blocks to cut a line."""
    # r^2 c = k^2 / c products within blocks and 2 c^2 between them: fewest at
    # 4 c^3 = k^2. Multiples of 16 blocks fill the vector registers of every processor.
    return 16 * max(1, round((num_sites**2 / 4) ** (1 / 3) / 16))


def _weighted(decays, weights):
    # Written out, the compiler makes one pass over the result.
    total = decays[0] * weights[0]
    for j in range(1, len(weights)):
        total += decays[j] * weights[j]
    return total
