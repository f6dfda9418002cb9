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

LARGEST_SAFE_EXPONENT = 40.0
"""Of cost / epsilon. The gradient multiplies two scalings, each up to 1 over the
smallest kernel entry, and exp(2 * 40) = 6e34 is still a float32."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def scaling_vectors(
    kernel: Float[Array, "n m"],
    row_mass: Float[Array, "n"],
    column_mass: Float[Array, "m"],
    num_iters: int,
) -> tuple[Float[Array, "t n"], Float[Array, "t m"]]:
    """u_t and v_t of every iteration; the last ones make the plan.

    Args:
        kernel: exp(-cost / epsilon), 0 in rows and columns without mass. No other
            entry may be below exp(-LARGEST_SAFE_EXPONENT): nothing here guards
            against overflow.
        row_mass: mass of every row; the scaling of a row without mass is 0.
        column_mass: mass of every column, likewise.
        num_iters: how many iterations, at least 1.

    Source: cuturi2013sinkhorn, algorithm 1.
    """

    def normalise(v, _):
        u = row_mass / _positive(kernel @ v, row_mass)
        v = column_mass / _positive(u @ kernel, column_mass)
        return v, (u, v)

    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(normalise, jnp.ones_like(column_mass), length=num_iters)[1]


def _forward(kernel, row_mass, column_mass, num_iters):
    u, v = scaling_vectors(kernel, row_mass, column_mass, num_iters)
    return (u, v), (kernel, row_mass, column_mass, u, v)


def _backward(num_iters, residuals, gradient):
    kernel, row_mass, column_mass, u, v = residuals
    before = jnp.concatenate([jnp.ones_like(v[:1]), v[:-1]])  # v_{t-1}
    # 1 / s_t and 1 / r_t, without dividing by zero where there is no mass.
    over_s = v / _positive(column_mass, column_mass)
    over_r = u / _positive(row_mass, row_mass)

    def undo(dv, step):
        u, v, over_r, over_s, du_here, dv_here = step
        dv = dv + dv_here
        # In this order: each product stays in range where u^2 would not.
        ds = -(dv * v) * over_s
        du = du_here + kernel @ ds
        dr = -(du * u) * over_r
        return dr @ kernel, (dr, ds, du * over_r, dv * over_s)

    with jax.default_matmul_precision("highest"):
        _, (dr, ds, drow, dcolumn) = jax.lax.scan(
            undo,
            jnp.zeros_like(column_mass),
            (u, v, over_r, over_s, *gradient),
            reverse=True,
        )
        dkernel = jnp.concatenate([u, dr]).T @ jnp.concatenate([ds, before])
    return dkernel, drow.sum(axis=0), dcolumn.sum(axis=0)


scaling_vectors.defvjp(_forward, _backward)


def _positive(sums, mass):
    # Where nothing has mass the sums are 0 as well: 0 / 1 instead of 0 / 0.
    return jnp.where(mass > 0, sums, 1)
