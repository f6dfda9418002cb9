"""Plans by the solvers of OTT: converged, unbalanced, low-rank.

Importing OTT takes seconds, so it is put off until a problem is solved. The solvers
here are records of settings, which experiments can hold; a solver object of OTT
itself does as well.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

if TYPE_CHECKING:
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import SinkhornOutput
    from ott.solvers.linear.sinkhorn_lr import LRSinkhornOutput

OTTSolver = Callable[[Any], Any]
"""Of a `LinearProblem`; what it returns has the plan as `matrix`."""


@dataclasses.dataclass(frozen=True)
class Converged:
    """Sinkhorn's algorithm in the log domain, until the marginals are met.

    Args:
        threshold: it stops once the L1 error of the marginals is below, or, if they may
            differ, what OTT takes for it: the change of the potentials.
        max_iters: or after so many iterations, converged or not. Below 10 the error
            is not looked at in between.
    """

    threshold: float = 1e-3
    max_iters: int = 2000

    def __post_init__(self) -> None:
        if self.max_iters < 1:
            raise ValueError(f"max_iters must be at least 1, got {self.max_iters}")

    def __call__(self, problem: "LinearProblem") -> "SinkhornOutput":
        from ott.solvers.linear.sinkhorn import Sinkhorn

        solver = Sinkhorn(threshold=self.threshold, max_iterations=self.max_iters)
        return solver(problem)


@dataclasses.dataclass(frozen=True)
class LowRank:
    """Plans of low rank, P = Q diag(1 / g) R', found by mirror descent.

    The problem's epsilon plays no part: the rank is what regularises. Balanced
    problems only. Starts from the same random factors every time.

    Args:
        rank: of the plan.
        threshold: it stops once the factors change by less.
        max_iters: or after so many iterations.

    Source: scetbon2021lowrank.
    """

    rank: int
    threshold: float = 1e-3
    max_iters: int = 2000

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if self.max_iters < 1:
            raise ValueError(f"max_iters must be at least 1, got {self.max_iters}")

    def __call__(self, problem: "LinearProblem") -> "LRSinkhornOutput":
        from ott.geometry.geometry import Geometry
        from ott.problems.linear.linear_problem import LinearProblem
        from ott.solvers.linear.sinkhorn_lr import LRSinkhorn

        solver = LRSinkhorn(
            rank=self.rank, threshold=self.threshold, max_iterations=self.max_iters
        )
        # Neither scale nor offset of the cost matter, but OTT's step is one over it.
        cost = problem.geom.cost_matrix
        largest = jnp.max(cost)
        exists = largest > jnp.finfo(cost.dtype).tiny
        cost = jnp.where(exists, cost / jnp.where(exists, largest, 1), 1)
        geometry = Geometry(cost, epsilon=problem.geom.epsilon)
        return solver(
            LinearProblem(geometry, problem.a, problem.b, problem.tau_a, problem.tau_b)
        )


class Plan(NamedTuple):
    """What a solver found, without gradient."""

    matrix: Float[Array, "n m"]
    """0 in rows and columns without mass."""
    converged: Bool[Array, ""] | None
    """Whether the solver says so; None if it does not say."""


def solve(
    solver: OTTSolver,
    cost: Float[Array, "n m"],
    row_mass: Float[Array, "n"],
    column_mass: Float[Array, "m"],
    *,
    epsilon: float,
    row_tau: float = 1.0,
    column_tau: float = 1.0,
) -> Plan:
    """The plan that an OTT solver finds, a constant in gradients.

        min_P  <P, cost> + epsilon KL(P | a b') + rho_a KL(P 1 | a) + rho_b KL(P' 1 | b)

    over plans P whose row sums are the masses a, unless row_tau < 1, and whose column
    sums are b, unless column_tau < 1. OTT's own entropy does not know the masses,
    which makes no difference as long as the sums are given; where they are not, its
    plans gain mass with every row. The cost is shifted there so that the minimum is
    this one, whatever the number of rows.

    OTT 0.6.0 has no gradient to use: unrolled over several blocks of iterations it is
    wrong, and implicit it raises in float32.

    Args:
        solver: `Converged`, `LowRank`, `FixedIterations`, or any of OTT's.
        cost: ground cost. What it holds in rows and columns without mass has no
            effect.
        row_mass: mass of every row.
        column_mass: mass of every column. Mass 0 is the same as no such column,
            but for a solver that draws random numbers for every one.
        epsilon: entropic regularisation, in units of the cost.
        row_tau: rho / (rho + epsilon), where rho is the price of a row sum that
            differs from its mass; 1 if it may not.
        column_tau: likewise for the columns.

    Raises:
        ValueError: the solver is a low-rank one and the problem unbalanced. OTT
            takes rho for tau / (1 - tau) there, whatever epsilon.
    """
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn_lr import LRSinkhornOutput

    cost, row_mass, column_mass = jax.lax.stop_gradient((cost, row_mass, column_mass))
    exist = (row_mass > 0)[:, None] & (column_mass > 0)[None, :]
    if row_tau < 1 or column_tau < 1:
        log_masses = [jnp.log(jnp.where(m > 0, m, 1)) for m in (row_mass, column_mass)]
        cost -= epsilon * (log_masses[0][:, None] + log_masses[1][None, :])
    problem = LinearProblem(
        Geometry(jnp.where(exist, cost, 0), epsilon=epsilon),
        a=row_mass,
        b=column_mass,
        tau_a=row_tau,
        tau_b=column_tau,
    )
    output = solver(problem)
    if isinstance(output, LRSinkhornOutput) and not problem.is_balanced:
        raise ValueError("low-rank plans are for balanced problems, tau = 1")
    matrix = jax.lax.stop_gradient(jnp.where(exist, output.matrix, 0))
    converged = getattr(output, "converged", None)
    return Plan(matrix, None if converged is None else jnp.asarray(converged))
