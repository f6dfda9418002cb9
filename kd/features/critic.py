"""A critic of pairs: a small network that is large where two vectors belong together.

    f(x, y) = relu(x A + y B + b) w

Where neither [A; B] nor w has a singular value above 1, f is 1-Lipschitz in (x, y).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from kd.features.norms import norm
from kd.features.projection import linear_parameters
from kd.types import Params


def critic_parameters(
    key: PRNGKeyArray, first_width: int, second_width: int, width: int
) -> Params:
    """Of a critic with `width` hidden units."""
    first, second = jax.random.split(key)
    return {
        "first": linear_parameters(first, first_width + second_width, width),
        "second": linear_parameters(second, width, 1)["kernel"],
    }


def scores_of_all(
    params: Params, first: Float[Array, "b d"], second: Float[Array, "c e"]
) -> Float[Array, "b c"]:
    """f(x_i, y_j) of all pairs of rows."""
    ours, theirs = _both(params, first, second)
    return _head(params, ours[:, None] + theirs[None])


def scores_of_rows(
    params: Params, first: Float[Array, "b d"], second: Float[Array, "b e"]
) -> Float[Array, "b"]:
    """f(x_i, y_i)."""
    ours, theirs = _both(params, first, second)
    return _head(params, ours + theirs)


def _both(params, first, second):
    """What either side gives to the hidden units, which add it up."""
    ours, theirs = jnp.split(params["first"]["kernel"], [first.shape[1]])
    return first @ ours, second @ theirs


def _head(params, sums):
    units = jax.nn.relu(sums + params["first"]["bias"])
    return (units @ params["second"])[..., 0]


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
