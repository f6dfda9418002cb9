"""Sinkhorn's iterations on potentials, for kernels that would underflow.

    f_t = log row_mass    - logsumexp_j(M_ij + g_{t-1,j})
    g_t = log column_mass - logsumexp_i(M_ij + f_{t,i})          g_0 = 0

with M = -cost / epsilon: the logarithms of `kernel_domain.scaling_vectors`, for any
epsilon. Going backwards only the potentials are kept, as there; but their
exponentials may not fit a float, so the gradient of M is summed up step by step
from matrices that do, whose rows (A) or columns (B) sum to 1:

    B_t = exp(M + f_t + g_t) / column_mass        f'_t -= B_t g'_t
    A_t = exp(M + f_t + g_{t-1}) / row_mass       g'_{t-1} -= A_t^T f'_t
    M'  = -sum_t B_t diag(g'_t) + diag(f'_t) A_t
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.transport.rows import logsumexp_over_rows, over_rows, share_of_column


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def potentials(
    log_kernel: Float[Array, "n m"],
    row_mass: Float[Array, "n"],
    column_mass: Float[Array, "m"],
    num_iters: int,
    axis: str | None = None,
) -> tuple[Float[Array, "n"], Float[Array, "m"], Float[Array, "t"]]:
    """f and g after the last iteration, and the row errors after all but the last.

    The plan is exp(M + f + g). As for `kernel_domain.scaling_vectors` no gradient
    flows through the errors.

    Args:
        log_kernel: M, -inf in rows and columns without mass.
        row_mass: mass of every row; the potential of a row without mass is 0.
        column_mass: mass of every column, likewise.
        num_iters: how many iterations, at least 1.
        axis: of the mesh that rows are sharded over, see `kd.transport.rows`.
    """
    f, g, errors = _iterate(log_kernel, row_mass, column_mass, num_iters, axis)
    return f[-1], g[-1], errors


def _iterate(log_kernel, row_mass, column_mass, num_iters, axis):
    log_rows, log_columns = safe_log(row_mass), safe_log(column_mass)

    def normalise(potentials, _):
        before, g = potentials
        sums = jax.nn.logsumexp(log_kernel + g[None, :], axis=1)
        f = jnp.where(row_mass > 0, log_rows - sums, 0)
        # Normalising a row takes it from its sum to its mass, so the step of f tells
        # the sum before it.
        error = jnp.abs(row_mass * jnp.expm1(before - f)).sum()
        sums = logsumexp_over_rows(log_kernel + f[:, None], axis)
        g = jnp.where(column_mass > 0, log_columns - sums, 0)
        return (f, g), (f, g, error)

    start = jnp.zeros_like(row_mass), jnp.zeros_like(column_mass)
    _, (f, g, errors) = jax.lax.scan(normalise, start, length=num_iters)
    return f, g, over_rows(errors[1:], axis)


def _forward(log_kernel, row_mass, column_mass, num_iters, axis):
    f, g, errors = _iterate(log_kernel, row_mass, column_mass, num_iters, axis)
    return (f[-1], g[-1], errors), (log_kernel, row_mass, column_mass, f, g)


def _backward(num_iters, axis, residuals, gradient):
    log_kernel, row_mass, column_mass, f, g = residuals
    df_last, dg_last = gradient[0], over_rows(gradient[1], axis)
    before = jnp.concatenate([jnp.zeros_like(g[:1]), g[:-1]])  # g_{t-1}
    log_rows, log_columns = safe_log(row_mass), safe_log(column_mass)

    def undo(carry, step):
        df, dg, total = carry
        f, g, before = step
        dg = jnp.where(column_mass > 0, dg, 0)
        b = jnp.exp(log_kernel + f[:, None] + (g - log_columns)[None, :]) * dg[None, :]
        df = jnp.where(row_mass > 0, df - b.sum(axis=1), 0)
        a = jnp.exp(log_kernel + (f - log_rows)[:, None] + before[None, :])
        a = a * df[:, None]
        dg_before = over_rows(-a.sum(axis=0), axis)
        # Only the last potentials are used outside.
        return (jnp.zeros_like(df), dg_before, total - a - b), (df, dg)

    start = df_last, dg_last, jnp.zeros_like(log_kernel)
    (_, _, dlog_kernel), (df, dg) = jax.lax.scan(
        undo, start, (f, g, before), reverse=True
    )
    dcolumn = dg.sum(axis=0) / jnp.where(column_mass > 0, column_mass, 1)
    return (
        dlog_kernel,
        df.sum(axis=0) / jnp.where(row_mass > 0, row_mass, 1),
        share_of_column(dcolumn, axis),
    )


potentials.defvjp(_forward, _backward)


def safe_log(mass: Float[Array, "n"]) -> Float[Array, "n"]:
    """log of a mass, 0 where there is none."""
    return jnp.log(jnp.where(mass > 0, mass, 1))
