"""Sinkhorn's iterations on scaling vectors, with an exact gradient of all of them.

    u_t = row_mass / (K v_{t-1})
    v_t = column_mass / (K^T u_t)          v_0 = 1

Reverse mode through a loop would keep K, or worse, once per iteration. The iterates
are enough. With r_t = K v_{t-1}, s_t = K^T u_t and a bar for the gradient of the
result with respect to a quantity, going backwards in t:

    s'_t = -v'_t v_t / s_t          u'_t += K s'_t
    r'_t = -u'_t u_t / r_t          v'_{t-1} += K^T r'_t
    K'   = sum_t u_t s'_t^T + r'_t v_{t-1}^T

and K' is one product of [n, 2 num_iters] with [2 num_iters, m] at the end.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.transport.rows import over_rows, share_of_column

LARGEST_SAFE_EXPONENT = 40.0
"""Of cost / epsilon. The gradient multiplies two scalings, each up to 1 over the
smallest kernel entry, and exp(2 * 40) = 6e34 is still a float32."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def scaling_vectors(
    kernel: Float[Array, "n m"],
    row_mass: Float[Array, "n"],
    column_mass: Float[Array, "m"],
    num_iters: int,
    axis: str | None = None,
) -> tuple[Float[Array, "n"], Float[Array, "m"], Float[Array, "t"]]:
    """u and v after the last iteration, and the row errors after all but the last.

    The error after iteration t is sum_i |sum_j u_ti K_ij v_tj - row_mass_i|; no
    gradient flows through it.

    Args:
        kernel: exp(-cost / epsilon), 0 in rows and columns without mass. No other
            entry may be below exp(-LARGEST_SAFE_EXPONENT): nothing here guards
            against overflow.
        row_mass: mass of every row; the scaling of a row without mass is 0.
        column_mass: mass of every column, likewise.
        num_iters: how many iterations, at least 1.
        axis: of the mesh that rows are sharded over, see `kd.transport.rows`.

    Source: cuturi2013sinkhorn, algorithm 1.
    """
    u, v, errors = _iterate(kernel, row_mass, column_mass, num_iters, axis)
    return u[-1], v[-1], errors


def _iterate(kernel, row_mass, column_mass, num_iters, axis):
    def normalise(scalings, _):
        u, v = scalings
        sums = kernel @ v
        error = jnp.abs(u * sums - row_mass).sum()
        u = row_mass / _positive(sums, row_mass)
        v = column_mass / _positive(over_rows(u @ kernel, axis), column_mass)
        return (u, v), (u, v, error)

    start = jnp.zeros_like(row_mass), jnp.ones_like(column_mass)
    with jax.default_matmul_precision("highest"):
        _, (u, v, errors) = jax.lax.scan(normalise, start, length=num_iters)
    return u, v, over_rows(errors[1:], axis)


def _forward(kernel, row_mass, column_mass, num_iters, axis):
    u, v, errors = _iterate(kernel, row_mass, column_mass, num_iters, axis)
    return (u[-1], v[-1], errors), (kernel, row_mass, column_mass, u, v)


def _backward(num_iters, axis, residuals, gradient):
    kernel, row_mass, column_mass, u, v = residuals
    du_last, dv_last = gradient[0], over_rows(gradient[1], axis)
    before = jnp.concatenate([jnp.ones_like(v[:1]), v[:-1]])  # v_{t-1}
    # 1 / s_t and 1 / r_t, without dividing by zero where there is no mass.
    over_s = v / _positive(column_mass, column_mass)
    over_r = u / _positive(row_mass, row_mass)

    def undo(carry, step):
        du, dv = carry
        u, v, over_r, over_s = step
        # In this order: each product stays in range where u^2 would not.
        ds = -(dv * v) * over_s
        du = du + kernel @ ds
        dr = -(du * u) * over_r
        dv_before = over_rows(dr @ kernel, axis)
        # Only the last scalings are used outside.
        return (jnp.zeros_like(du), dv_before), (dr, ds, du * over_r, dv * over_s)

    with jax.default_matmul_precision("highest"):
        _, (dr, ds, drow, dcolumn) = jax.lax.scan(
            undo, (du_last, dv_last), (u, v, over_r, over_s), reverse=True
        )
        dkernel = jnp.concatenate([u, dr]).T @ jnp.concatenate([ds, before])
    return dkernel, drow.sum(axis=0), share_of_column(dcolumn.sum(axis=0), axis)


scaling_vectors.defvjp(_forward, _backward)


def _positive(sums, mass):
    # Where nothing has mass the sums are 0 as well: 0 / 1 instead of 0 / 0.
    return jnp.where(mass > 0, sums, 1)
