"""Numbers that say what a transport plan does and whether it is one."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.transport.rows import over_rows

TOLERANCE = 1e-2
"""Of the marginal error of a plan that counts as feasible, as a share of its mass."""


def marginal_error(
    plan: Float[Array, "n m"],
    row_mass: Float[Array, "n"],
    column_mass: Float[Array, "m"],
) -> Float[Array, ""]:
    """sum_i |sum_j P_ij - row_mass_i| + sum_j |sum_i P_ij - column_mass_j|.

    0 for a feasible plan, at most twice the total mass otherwise if the plan has
    that mass.
    """
    rows = jnp.abs(plan.sum(axis=1) - row_mass).sum()
    return rows + jnp.abs(plan.sum(axis=0) - column_mass).sum()


def entropy(plan: Float[Array, "n m"]) -> Float[Array, ""]:
    """-sum_ij P_ij log P_ij in nats, of the plan scaled to mass 1."""
    plan = plan / _or_1(plan.sum())
    return -jnp.sum(plan * jnp.log(jnp.where(plan > 0, plan, 1)))


def effective_support(plan: Float[Array, "n m"]) -> Float[Array, ""]:
    """How many columns a row is spread over: exp(entropy of a column given its row).

        exp(-sum_ij P_ij log(P_ij / sum_k P_ik))          of the plan scaled to mass 1

    1 for a matching, the number of columns for a plan that pairs everything alike.
    """
    return jnp.exp(entropy(plan) - entropy(plan.sum(axis=1, keepdims=True)))


def mass_off_diagonal(plan: Float[Array, "n n"]) -> Float[Array, ""]:
    """The share of the mass that goes from row i to another column than i."""
    return 1 - jnp.trace(plan) / _or_1(plan.sum())


def diagnose(
    *,
    costs: Float[Array, "n"],
    sums: Float[Array, "n"],
    f: Float[Array, "n"],
    g: Float[Array, "m"],
    own_g: Float[Array, "n"],
    own_cost: Float[Array, "n"],
    row_mass: Float[Array, "n"],
    column_mass: Float[Array, "m"],
    errors: Float[Array, "t"],
    epsilon: float,
    axis: str | None = None,
) -> dict[str, Float[Array, ""]]:
    """All of the above of a Sinkhorn plan of mass 1, without looking at its matrix.

    With P_ij = exp((f_i + g_j - C_ij) / epsilon) whose columns meet their masses,

        entropy = (<P, C> - sum_i sums_i f_i - sum_j column_mass_j g_j) / epsilon

    so that everything is a sum over rows or columns. No gradient flows through.

    Args:
        costs: sum_j P_ij C_ij of every row.
        sums: sum_j P_ij of every row.
        f: potential of every row, in units of the cost, 0 without mass.
        g: potential of every column, likewise.
        own_g: g of the column with the row's own number.
        own_cost: C_ii, of every row to that column.
        row_mass: what rows should sum to.
        column_mass: what columns do sum to.
        errors: sum_i |sums_i - row_mass_i| after every iteration.
        epsilon: entropic regularisation, in units of the cost.
        axis: of the mesh that rows are sharded over, see `kd.transport.rows`.

    Returns:
        marginal_error; entropy; effective_support; mass_off_diagonal; feasible, 1 if
        the marginal error is at most 1 % of the mass; and iterations, the number of
        iterations after which it first was, or one more than there were.
    """
    costs, sums, f, g, own_g, own_cost, errors = jax.lax.stop_gradient(
        (costs, sums, f, g, own_g, own_cost, errors)
    )
    total = column_mass.sum()
    stays = jnp.exp((f + own_g - own_cost) / epsilon)
    of_rows = jnp.stack(
        [
            jnp.sum(costs - sums * f),
            -jnp.sum(sums * jnp.log(jnp.where(sums > 0, sums, 1))),
            jnp.sum(jnp.where(row_mass > 0, stays, 0)),
        ]
    )
    cost_less_potentials, entropy_of_rows, on_diagonal = over_rows(of_rows, axis)
    of_plan = (cost_less_potentials - jnp.sum(column_mass * g)) / epsilon
    met = errors <= TOLERANCE * total
    return {
        "marginal_error": errors[-1],
        "entropy": of_plan,
        "effective_support": jnp.exp(of_plan - entropy_of_rows),
        "mass_off_diagonal": total - on_diagonal,
        "feasible": met[-1].astype(sums.dtype),
        "iterations": (1 + jnp.sum(~met)).astype(sums.dtype),
    }


def _or_1(total):
    return jnp.where(total > 0, total, 1)
