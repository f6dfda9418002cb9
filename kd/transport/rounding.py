"""From a plan that nearly meets its marginals to one that does."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def round_to_feasible(
    plan: Float[Array, "n m"],
    row_mass: Float[Array, "n"],
    column_mass: Float[Array, "m"],
) -> Float[Array, "n m"]:
    """The nearest cheap plan with exactly these marginals.

        F   = diag(min(1, row_mass / F_0 1)) F_0, likewise for columns
        out = F + e_r e_c^T / |e_r|_1,    e_r, e_c what rows and columns still lack

    It is at most 2 (|F_0 1 - row_mass|_1 + |F_0^T 1 - column_mass|_1) away from
    F_0 = plan in L1. Few iterations leave the row sums of a Sinkhorn plan off by
    `marginal_error`; the cost of the rounded plan is then an upper bound of the
    exact transport cost, which that of the plan itself need not be.

    Args:
        plan: entries at least 0.
        row_mass: mass of every row, at least 0.
        column_mass: mass of every column, of the same total.

    Source: altschuler2017nearlinear, algorithm 2.
    """
    plan = plan * _shrink(plan.sum(axis=1), row_mass)[:, None]
    plan = plan * _shrink(plan.sum(axis=0), column_mass)[None, :]
    # Never negative but for rounding errors.
    row_lack = jnp.maximum(row_mass - plan.sum(axis=1), 0)
    column_lack = jnp.maximum(column_mass - plan.sum(axis=0), 0)
    total = row_lack.sum()
    share = row_lack / jnp.where(total > 0, total, 1)
    return plan + share[:, None] * column_lack[None, :]


def _shrink(sums, mass):
    return jnp.where(sums > mass, mass / jnp.where(sums > 0, sums, 1), 1)
