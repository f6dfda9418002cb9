"""Sums over all rows of a problem whose rows may be spread over devices.

A problem is sharded by its rows: inside `jax.shard_map` every device holds some rows
of the cost, whole, and a copy of whatever belongs to the columns. All that must cross
devices is a sum or a maximum over rows, one number a column.

Gradients follow the same rule: a device knows what its own rows make of its copy of
the columns. The gradient of the columns is the sum over devices, and what is handed
back for a copy is a share of it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def over_rows(
    partial: Float[Array, "*shape"], axis: str | None
) -> Float[Array, "*shape"]:
    """A sum over the rows here, made one over all rows.

    Args:
        partial: what the rows here add up to.
        axis: of the mesh over which rows are sharded; None where all rows are here.
    """
    return partial if axis is None else jax.lax.psum(partial, axis)


def logsumexp_over_rows(
    values: Float[Array, "n m"], axis: str | None
) -> Float[Array, "m"]:
    """log sum_i exp(values_ij) over all rows i; -inf where all of them are."""
    largest = values.max(axis=0)
    if axis is not None:
        largest = jax.lax.pmax(largest, axis)
    largest = jnp.where(largest > -jnp.inf, largest, 0)
    total = over_rows(jnp.exp(values - largest).sum(axis=0), axis)
    return jnp.log(total) + largest


def share_of_column(gradient: Float[Array, "m"], axis: str | None) -> Float[Array, "m"]:
    """What a device hands back for its copy of the columns, of a gradient all know."""
    return gradient if axis is None else gradient / jax.lax.axis_size(axis)
