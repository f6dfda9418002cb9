"""Numbers that say what a transport plan does and whether it is one."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
    plan: Float[Array, "n n"],
    row_mass: Float[Array, "n"],
    column_mass: Float[Array, "n"],
    *,
    tolerance: float = 1e-2,
) -> dict[str, Float[Array, ""]]:
    """All of the above by name, and `feasible`: 1 if the plan meets its marginals.

    No gradient flows through them. Two passes over the plan.

    Args:
        plan: a plan of a batch onto itself, so that the diagonal means something.
        row_mass: what its rows should sum to.
        column_mass: what its columns should sum to.
        tolerance: a plan is feasible up to a marginal error of this share of its
            mass.
    """
    plan, row_mass, column_mass = jax.lax.stop_gradient((plan, row_mass, column_mass))
    error = marginal_error(plan, row_mass, column_mass)
    feasible = error <= tolerance * row_mass.sum()
    return {
        "marginal_error": error,
        "entropy": entropy(plan),
        "effective_support": effective_support(plan),
        "mass_off_diagonal": mass_off_diagonal(plan),
        "feasible": feasible.astype(plan.dtype),
    }


def _or_1(total):
    return jnp.where(total > 0, total, 1)
