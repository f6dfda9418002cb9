"""The gradient of converged potentials, by the implicit function theorem.

At convergence the plan P = exp(M + f + g), M = -cost / epsilon, meets both
marginals whatever the way there. Differentiating P 1 = row_mass and
P^T 1 = column_mass gives a symmetric system with the row sums R and the column
sums S of P,

    [ diag R     P    ] [x]   [f']
    [  P^T    diag S  ] [y] = [g'],      M' = -P * (x_i + y_j),
                                         row_mass' = x, column_mass' = y

singular in one direction only, x + c and y - c, which changes nothing. Eliminating
x leaves, with A = diag(R)^(-1/2) P diag(S)^(-1/2) and z = diag(S)^(1/2) y,

    (I - A^T A) z = diag(S)^(-1/2) (g' - P^T diag(R)^-1 f')

whose null vector is sqrt(S). Adding its projector makes the matrix positive
definite with eigenvalues in (0, 1], and conjugate gradients solve it at two
products with P a step. They stop at a tolerance or at a number of steps, and
cannot fail: where the problem is too ill-conditioned for the precision the
gradient is that of a regularised system.
"""

import functools

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

from kd.transport.rows import over_rows, share_of_column

_MOST_STEPS = 200


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def at_convergence(
    log_kernel: Float[Array, "n m"],
    row_mass: Float[Array, "n"],
    column_mass: Float[Array, "m"],
    f: Float[Array, "n"],
    g: Float[Array, "m"],
    axis: str | None = None,
) -> tuple[Float[Array, "n"], Float[Array, "m"]]:
    """The potentials f and g as they are, with the gradient of converged ones.

    Args:
        log_kernel: M, -inf in rows and columns without mass.
        row_mass: mass of every row.
        column_mass: mass of every column, of the same total.
        f: potential of every row, in units of epsilon; no gradient flows into it.
        g: potential of every column, likewise.
        axis: of the mesh that rows are sharded over, see `kd.transport.rows`.
    """
    del log_kernel, row_mass, column_mass, axis
    return f, g


def _forward(log_kernel, row_mass, column_mass, f, g, axis):
    del axis
    return (f, g), (jnp.exp(log_kernel + f[:, None] + g[None, :]),)


def _backward(axis, residuals, gradient):
    (plan,) = residuals
    with jax.default_matmul_precision("highest"):
        x, y = _solve(plan, gradient[0], over_rows(gradient[1], axis), axis)
    dlog_kernel = -plan * (x[:, None] + y[None, :])
    return dlog_kernel, x, share_of_column(y, axis), None, None


def _solve(plan, df, dg, axis):
    # The plan's own sums, not the masses: A then has no singular value above 1,
    # converged or not.
    rows, columns = plan.sum(axis=1), over_rows(plan.sum(axis=0), axis)
    inverse = jnp.where(rows > 0, 1 / jnp.where(rows > 0, rows, 1), 0)
    root = jnp.sqrt(columns)
    over_root = jnp.where(columns > 0, 1 / jnp.where(columns > 0, root, 1), 0)
    null = root / jnp.maximum(jnp.linalg.norm(root), jnp.finfo(root.dtype).tiny)

    def apply(z):
        through = over_rows((inverse * (plan @ (over_root * z))) @ plan, axis)
        return z - through * over_root + null * (null @ z)

    df = jnp.where(rows > 0, df, 0)
    target = over_root * (dg - over_rows((inverse * df) @ plan, axis))
    target = target - null * (null @ target)  # solvable, but for rounding
    tolerance = 10 * float(jnp.finfo(plan.dtype).eps)
    z, _ = cg(apply, target, tol=tolerance, maxiter=_MOST_STEPS)
    y = over_root * z
    return inverse * (df - plan @ y), y


at_convergence.defvjp(_forward, _backward)
