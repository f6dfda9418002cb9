"""Lengths, directions, distances, centring and Gram matrices that stay finite.

Features may be as large or as small as their dtype holds: squares are taken of what is
scaled to the largest entry. A zero vector has length and direction 0, with gradient 0;
one whose entries are all below the smallest normal number of the dtype (1e-38 in
float32) counts as zero.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def scaled(
    values: Float[Array, "..."], axis: int | tuple[int, ...] | None = -1
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Values divided by the largest magnitude along an axis, and that magnitude.

    The magnitude has no gradient, which is exact for what does not depend on the scale
    and for what is multiplied by it again.
    """
    size = jnp.max(jnp.abs(jax.lax.stop_gradient(values)), axis=axis, keepdims=True)
    size = jnp.where(size >= jnp.finfo(values.dtype).tiny, size, 1)
    return values / size, size


def norm(values: Float[Array, "... d"]) -> Float[Array, "..."]:
    """Euclidean length along the last axis."""
    values, size = scaled(values)
    squared = jnp.sum(jnp.square(values), axis=-1)
    positive = squared > 0
    length = jnp.sqrt(jnp.where(positive, squared, 1))
    return jnp.where(positive, size[..., 0] * length, 0)


def unit(values: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Direction along the last axis: length 1, or 0 where the vector is."""
    values, _ = scaled(values)  # not to divide by a length that is not finite
    length = norm(values)[..., None]
    # Not values / 1 there, whose derivative is 1.
    return jnp.where(length > 0, values / jnp.where(length > 0, length, 1), 0)


def distances(values: Float[Array, "b d"]) -> Float[Array, "b b"]:
    """Euclidean distance of every pair of rows; exactly 0 between equal ones.

    From differences, not from inner products, which lose all digits of close pairs; of
    a few rows at a time, in both directions, so that no [b, b, d] is ever held.
    """
    return over_rows(lambda row: norm(row - values), values)


def over_rows(function: Callable[..., Array], *rows: Float[Array, "b _"]) -> Array:
    """A function of every row, stacked; intermediates are made anew for the gradient.

    Args:
        function: of one row of each array.
        rows: as many in every array.
    """
    remade = jax.checkpoint(lambda row: function(*row))
    return jax.lax.map(remade, rows, batch_size=_ROWS_AT_A_TIME)


_ROWS_AT_A_TIME = 16


def centred(
    values: Float[Array, "b d"], where: Bool[Array, "b"]
) -> Float[Array, "b d"]:
    """Without the mean of the kept rows; 0 on the others, and where all are equal."""
    kept = where[:, None]
    count = jnp.maximum(jnp.sum(where), 1)
    first = values[jnp.argmax(where)]
    # Less a row of them first: then equal rows are 0, not what their mean is off by.
    values = jnp.where(kept, values - first, 0)
    return jnp.where(kept, values - jnp.sum(values, axis=0) / count, 0)


def gram(
    values: Float[Array, "... n d"], others: Float[Array, "... m d"] | None = None
) -> Float[Array, "... n m"]:
    """Inner products of all pairs of rows, at full precision on every device."""
    others = values if others is None else others
    return jnp.matmul(
        values, jnp.swapaxes(others, -1, -2), precision=jax.lax.Precision.HIGHEST
    )


def pairs(where: Bool[Array, "b"]) -> Bool[Array, "b b"]:
    """True where both rows are kept."""
    return where[:, None] & where[None]


def row_mean(values: Float[Array, "b b"], where: Bool[Array, "b"]) -> Float[Array, "b"]:
    """Mean of every row over the kept columns."""
    count = jnp.maximum(jnp.sum(where), 1)
    return jnp.sum(values, axis=1, where=where[None]) / count
