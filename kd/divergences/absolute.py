"""|x - y| with a slope of 0 where the two are equal, as a loss wants it."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def absolute_difference(
    x: Float[Array, "..."], y: Float[Array, "..."]
) -> Float[Array, "..."]:
    """|x - y|, elementwise, with the subgradient 0 where x = y.

    The derivative of `jnp.abs` at 0 is 1, which would push a student away from a
    teacher with whom it agrees. By comparison of the two, as in `kd.transport.cost`:
    of a difference between a number and itself the compiler may leave a rounding
    error, where it fuses the subtraction with what x came from.

    Args:
        x: any shape and float dtype.
        y: of the same shape. NaN in either gives NaN.
    """
    return jnp.where(x == y, 0, jnp.where(x > y, x - y, y - x))
