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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def potentials(
    log_kernel: Float[Array, "n m"],
    row_mass: Float[Array, "n"],
    column_mass: Float[Array, "m"],
    num_iters: int,
) -> tuple[Float[Array, "t n"], Float[Array, "t m"]]:
    """f_t and g_t of every iteration; the plan is exp(M + f + g) of the last ones.

    Args:
        log_kernel: M, -inf in rows and columns without mass.
        row_mass: mass of every row; the potential of a row without mass is 0.
        column_mass: mass of every column, likewise.
        num_iters: how many iterations, at least 1.
    """

    def normalise(g, _):
        f = _normaliser(log_kernel + g[None, :], row_mass, axis=1)
        g = _normaliser(log_kernel + f[:, None], column_mass, axis=0)
        return g, (f, g)

    return jax.lax.scan(normalise, jnp.zeros_like(column_mass), length=num_iters)[1]


def _normaliser(exponents, mass, *, axis):
    sums = jax.nn.logsumexp(exponents, axis=axis)
    return jnp.where(mass > 0, safe_log(mass) - sums, 0)


def _forward(log_kernel, row_mass, column_mass, num_iters):
    f, g = potentials(log_kernel, row_mass, column_mass, num_iters)
    return (f, g), (log_kernel, row_mass, column_mass, f, g)


def _backward(num_iters, residuals, gradient):
    log_kernel, row_mass, column_mass, f, g = residuals
    before = jnp.concatenate([jnp.zeros_like(g[:1]), g[:-1]])  # g_{t-1}
    log_rows, log_columns = safe_log(row_mass), safe_log(column_mass)

    def undo(carry, step):
        dg, total = carry
        f, g, before, df_here, dg_here = step
        dg = jnp.where(column_mass > 0, dg + dg_here, 0)
        b = jnp.exp(log_kernel + f[:, None] + (g - log_columns)[None, :]) * dg[None, :]
        df = jnp.where(row_mass > 0, df_here - b.sum(axis=1), 0)
        a = jnp.exp(log_kernel + (f - log_rows)[:, None] + before[None, :])
        a = a * df[:, None]
        return (-a.sum(axis=0), total - a - b), (df, dg)

    (_, dlog_kernel), (df, dg) = jax.lax.scan(
        undo,
        (jnp.zeros_like(column_mass), jnp.zeros_like(log_kernel)),
        (f, g, before, *gradient),
        reverse=True,
    )
    return (
        dlog_kernel,
        df.sum(axis=0) / jnp.where(row_mass > 0, row_mass, 1),
        dg.sum(axis=0) / jnp.where(column_mass > 0, column_mass, 1),
    )


potentials.defvjp(_forward, _backward)


def safe_log(mass: Float[Array, "n"]) -> Float[Array, "n"]:
    """log of a mass, 0 where there is none."""
    return jnp.log(jnp.where(mass > 0, mass, 1))
