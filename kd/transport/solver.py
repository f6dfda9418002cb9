"""Entropic optimal transport with a fixed number of Sinkhorn iterations.

    plan = diag(u) exp(-cost / epsilon) diag(v)

with u and v scaled in turn so that first the row sums, then the column sums,
match the given masses. The number of iterations is part of the definition (SinKD
runs 20 and differentiates through all of them), so nothing stops early.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.transport import implicit, kernel_domain, log_domain
from kd.transport.rows import over_rows

Gradient = Literal["unrolled", "envelope", "implicit"]


class Solution(NamedTuple):
    """The plan, and the iterates it came from."""

    plan: Float[Array, "n m"]
    """0 in rows and columns without mass; column sums exact, row sums nearly."""
    f: Float[Array, "n"]
    """Potential of every row in units of the cost: plan = exp((f + g - cost) /
    epsilon). 0 where there is no mass."""
    g: Float[Array, "m"]
    """Potential of every column, likewise."""
    errors: Float[Array, "t"]
    """sum_i |sum_j plan_ij - row_mass_i| after every iteration. No gradient."""


def solve(
    cost: Float[Array, "n m"],
    row_mass: Float[Array, "n"],
    column_mass: Float[Array, "m"],
    *,
    epsilon: float,
    num_iters: int,
    largest_cost: float = float("inf"),
    gradient: Gradient = "unrolled",
    axis: str | None = None,
) -> Solution:
    """The plan after `num_iters` row-then-column normalisations.

    Differentiable in reverse mode, in the cost and the masses, in one of three
    ways; `tests/transport/test_gradient_modes.py` shows how far apart they are.

    * "unrolled": of the plan as computed, after exactly these iterations. Keeps the
      scaling vectors of all iterations, num_iters (n + m) numbers, no matrices.
    * "implicit": of the converged plan, at the plan computed. Tends to "unrolled"
      as the iterations converge, at a cost that does not grow with them.
    * "envelope": none, the plan is a constant. Then the gradient of
      sum(plan * cost) is the plan: by Danskin's theorem that of the entropic cost,
      min <P, cost> + epsilon KL(P), at convergence. It is not the gradient of
      sum(plan * cost) itself.

    Args:
        cost: ground cost. Lifted to float32 if it has less. What it holds in rows
            and columns without mass has no effect.
        row_mass: mass of every row, at least 0.
        column_mass: mass of every column, of the same total. Mass 0 is the same as
            no such row or column.
        epsilon: entropic regularisation, in units of the cost.
        num_iters: normalisations of rows and of columns.
        largest_cost: a bound on the entries of `cost` if one is known. Where
            largest_cost / epsilon is moderate the kernel cannot underflow and the
            iterations are plain matrix-vector products; otherwise they run on
            potentials in the log domain.
        gradient: see above.
        axis: of the mesh that rows are sharded over: cost, row_mass, plan and f are
            then those of the rows on one device, column_mass, g and errors those of
            the whole problem. See `kd.transport.rows`.

    Raises:
        ValueError: epsilon is not positive, num_iters is below 1, `gradient` is
            unknown, or the shapes do not fit.

    Source: cuturi2013sinkhorn, algorithm 1; the order of the SinKD code.
    """
    check_settings(epsilon, num_iters, gradient)
    if cost.shape != row_mass.shape + column_mass.shape:
        raise ValueError(
            f"a cost of shape {cost.shape} needs masses [n] and [m], got "
            f"{row_mass.shape} and {column_mass.shape}"
        )
    dtype = jnp.promote_types(cost.dtype, jnp.float32)
    row_mass, column_mass = row_mass.astype(dtype), column_mass.astype(dtype)
    exist = (row_mass > 0)[:, None] & (column_mass > 0)[None, :]
    # Emptied before the exponential: whatever is there has no gradient either.
    exponents = jnp.where(exist, cost.astype(dtype), 0) / -epsilon
    kernel_is_safe = largest_cost / epsilon <= kernel_domain.LARGEST_SAFE_EXPONENT

    problem = (exponents, row_mass, column_mass, exist)
    if gradient != "unrolled":
        problem = jax.lax.stop_gradient(problem)
    iterate = _in_kernel_domain if kernel_is_safe else _in_log_domain
    plan, f, g, errors = iterate(*problem, num_iters, axis)
    if gradient == "implicit":
        log_kernel = jnp.where(exist, exponents, -jnp.inf)
        f, g = implicit.at_convergence(log_kernel, row_mass, column_mass, f, g, axis)
        plan = jnp.exp(log_kernel + f[:, None] + g[None, :])
    row_errors = jnp.abs(jax.lax.stop_gradient(plan.sum(axis=1) - row_mass))
    last_error = over_rows(row_errors.sum(), axis)
    errors = jax.lax.stop_gradient(jnp.append(errors, last_error))
    return Solution(plan, epsilon * f, epsilon * g, errors)


def check_settings(epsilon: float, num_iters: int, gradient: Gradient) -> None:
    """Raises ValueError if one of them is out of range, as `solve` does."""
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    if num_iters < 1:
        raise ValueError(f"num_iters must be at least 1, got {num_iters}")
    if gradient not in ("unrolled", "envelope", "implicit"):
        raise ValueError(
            f'gradient is "unrolled", "envelope" or "implicit", got {gradient!r}'
        )


def _in_kernel_domain(exponents, row_mass, column_mass, exist, num_iters, axis):
    kernel = jnp.where(exist, jnp.exp(exponents), 0)
    u, v, errors = kernel_domain.scaling_vectors(
        kernel, row_mass, column_mass, num_iters, axis
    )
    return _scaled(u, kernel, v), _log_or_0(u), _log_or_0(v), errors


@jax.custom_vjp
def _scaled(u, kernel, v):
    """diag(u) kernel diag(v), with a gradient that makes two matrices less."""
    return u[:, None] * kernel * v[None, :]


def _pull_scaled(residuals, gradient):
    u, kernel, v = residuals
    weighted = gradient * kernel
    with jax.default_matmul_precision("highest"):
        du, dv = weighted @ v, u @ weighted
    return du, gradient * u[:, None] * v[None, :], dv


_scaled.defvjp(
    lambda u, kernel, v: (_scaled(u, kernel, v), (u, kernel, v)), _pull_scaled
)


def _in_log_domain(exponents, row_mass, column_mass, exist, num_iters, axis):
    log_kernel = jnp.where(exist, exponents, -jnp.inf)
    f, g, errors = log_domain.potentials(
        log_kernel, row_mass, column_mass, num_iters, axis
    )
    return jnp.exp(log_kernel + f[:, None] + g[None, :]), f, g, errors


def _log_or_0(scaling):
    return jnp.log(jnp.where(scaling > 0, scaling, 1))
