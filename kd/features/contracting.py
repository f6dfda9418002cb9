"""Matrices that make no distance larger."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.features.norms import norm
from kd.types import Params


def contracted(params: Params) -> Params:
    """The same tree with matrices that have no singular value above 1."""
    return jax.tree.map(lambda x: contracting(x) if x.ndim == 2 else x, params)


def contracting(kernel: Float[Array, "d e"]) -> Float[Array, "d e"]:
    """The matrix, divided by its largest singular value where that exceeds 1."""
    # The singular vectors are constants: the value's derivative is their product,
    # while that of a decomposition is infinite where singular values meet.
    fixed = jax.lax.stop_gradient(kernel)
    squared = jnp.matmul(fixed.T, fixed, precision="highest")
    right = jnp.linalg.eigh(squared)[1][:, -1]
    left = fixed @ right
    largest = jnp.dot(left / jnp.where(norm(left) > 0, norm(left), 1), kernel @ right)
    return kernel / jnp.maximum(largest, 1)
