"""Entropic optimal transport with a fixed number of Sinkhorn iterations.

    plan = diag(u) exp(-cost / epsilon) diag(v)

with u and v scaled in turn so that first the row sums, then the column sums,
match the given masses. The number of iterations is part of the definition (SinKD
runs 20 and differentiates through all of them), so nothing stops early.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The gradient of mass / (kernel @ v) divides by the square of a sum of kernel entries:
# exp(-2 * 40) = 2e-35 is still a normal float32.
_LARGEST_SAFE_EXPONENT = 40.0


def solve(
    cost: Float[Array, "n m"],
    row_mass: Float[Array, "n"],
    column_mass: Float[Array, "m"],
    *,
    epsilon: float,
    num_iters: int,
    largest_cost: float = float("inf"),
) -> Float[Array, "n m"]:
    """The plan after `num_iters` row-then-column normalisations.

    Column sums are exact, row sums approximately so. Differentiable in reverse
    mode through every iteration. A row or column of mass 0 is the same as none.

    Args:
        cost: ground cost.
        row_mass: mass of every row, at least 0.
        column_mass: mass of every column, of the same total.
        epsilon: entropic regularisation, in units of the cost.
        num_iters: normalisations of rows and of columns.
        largest_cost: a bound on the entries of `cost` if one is known. Where
            largest_cost / epsilon is moderate the kernel cannot underflow and the
            iterations are plain matrix-vector products; otherwise they run on
            potentials in the log domain.

    Returns:
        The plan, 0 in rows and columns without mass.

    Raises:
        ValueError: epsilon is not positive, or num_iters is below 1.

    Source: cuturi2013sinkhorn, algorithm 1; the order of the SinKD code.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    if num_iters < 1:
        raise ValueError(f"num_iters must be at least 1, got {num_iters}")
    with jax.default_matmul_precision("highest"):
        if largest_cost / epsilon <= _LARGEST_SAFE_EXPONENT:
            return _solve_kernel(cost, row_mass, column_mass, epsilon, num_iters)
        return _solve_log(cost, row_mass, column_mass, epsilon, num_iters)


def _solve_kernel(cost, row_mass, column_mass, epsilon, num_iters):
    kernel = jnp.exp(-cost / epsilon)

    def normalise(scaling, _):
        _, v = scaling
        # Where nothing has mass the sums are 0 as well: 0 / 1 instead of 0 / 0.
        u = row_mass / jnp.where(row_mass > 0, kernel @ v, 1)
        v = column_mass / jnp.where(column_mass > 0, u @ kernel, 1)
        return (u, v), None

    # Columns without mass must not take part in the first row sums.
    start = (jnp.zeros_like(row_mass), (column_mass > 0).astype(cost.dtype))
    (u, v), _ = jax.lax.scan(normalise, start, length=num_iters)
    return u[:, None] * kernel * v[None, :]


def _solve_log(cost, row_mass, column_mass, epsilon, num_iters):
    log_kernel = -cost / epsilon
    log_rows, log_columns = _safe_log(row_mass), _safe_log(column_mass)

    rows, columns = row_mass > 0, column_mass > 0

    def normalise(potentials, _):
        _, g = potentials
        f = log_rows - _logsumexp(log_kernel + g[None, :], where=columns[None, :])
        g = log_columns - _logsumexp((log_kernel + f[:, None]).T, where=rows[None, :])
        return (f, g), None

    start = (jnp.zeros_like(row_mass), jnp.zeros_like(column_mass))
    (f, g), _ = jax.lax.scan(normalise, start, length=num_iters)
    exist = rows[:, None] & columns[None, :]
    exponent = log_kernel + f[:, None] + g[None, :]
    return jnp.where(exist, jnp.exp(jnp.where(exist, exponent, 0)), 0)


def _logsumexp(values, *, where):
    # Without any mass there is nothing to sum: 0, not -inf, keeps gradients finite.
    total = jax.nn.logsumexp(values, axis=1, where=where)
    return jnp.where(jnp.any(where), total, 0)


def _safe_log(mass):
    return jnp.log(jnp.where(mass > 0, mass, 1))
