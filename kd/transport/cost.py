"""Ground costs between every row of one array and every row of another."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def l1(x: Float[Array, "n v"], y: Float[Array, "m v"]) -> Float[Array, "n m"]:
    """cost_ij = sum_v |x_iv - y_jv|, at most 2 between probabilities.

    The subgradient 0 is taken where two entries agree.
    """
    return jnp.abs(x[:, None, :] - y[None, :, :]).sum(axis=-1)
