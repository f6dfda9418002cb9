"""The solver of this package in the shape of OTT's, for problems of OTT's.

    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem

    output = FixedIterations(20)(LinearProblem(Geometry(cost, epsilon=0.1)))
    output.matrix, output.f, output.g, output.errors

It stands wherever `ott.solvers.linear.sinkhorn.Sinkhorn` does, and the other way
round: unbalanced, low-rank and converged problems are OTT's.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from kd.transport import solver

if TYPE_CHECKING:  # importing OTT takes seconds; who has a problem of it has paid them
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import SinkhornOutput


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class FixedIterations:
    """Sinkhorn's algorithm for balanced problems, stopped after `num_iters`.

    Rows of the problem are normalised first and columns last (OTT does it the other
    way round). Gradients as `kd.transport.solver.solve` describes them, exact at
    any number of iterations.

    Args:
        num_iters: normalisations of rows and of columns.
        gradient: "unrolled", "implicit" or "envelope".
        largest_cost: a bound on the cost, if one is known, in units of epsilon;
            a moderate one allows plain matrix-vector products.
    """

    num_iters: int = 20
    gradient: solver.Gradient = "unrolled"
    largest_cost: float = float("inf")

    def __call__(
        self, problem: "LinearProblem", init: Any = None, rng: Any = None
    ) -> "SinkhornOutput":
        """Solves the problem.

        Args:
            problem: cost, epsilon and masses.
            init: OTT's initial potentials; there is nothing to initialise here.
            rng: OTT's randomness; there is none here.

        Returns:
            OTT's output: `matrix`, potentials `f` and `g` in units of the cost (-inf
            without mass), `reg_ot_cost`, and as `errors` the L1 error of the row sums
            after every iteration.

        Raises:
            ValueError: the problem is unbalanced, or initial potentials are given.
        """
        from ott.solvers.linear.sinkhorn import SinkhornOutput

        del rng
        if init is not None:
            raise ValueError("FixedIterations starts from zero potentials; omit init")
        if not problem.is_balanced:
            raise ValueError(
                "FixedIterations solves balanced problems, tau_a = tau_b = 1; for "
                "others take ott.solvers.linear.sinkhorn.Sinkhorn"
            )
        epsilon = problem.geom.epsilon
        solution = solver.solve(
            problem.geom.cost_matrix / epsilon,  # epsilon may be traced: scale it away
            problem.a,
            problem.b,
            epsilon=1.0,
            num_iters=self.num_iters,
            largest_cost=self.largest_cost,
            gradient=self.gradient,
        )
        f = jnp.where(problem.a > 0, epsilon * solution.f, -jnp.inf)
        g = jnp.where(problem.b > 0, epsilon * solution.g, -jnp.inf)
        output = SinkhornOutput(
            potentials=(f, g),
            errors=solution.errors,
            ot_prob=problem,
            inner_iterations=1,
        )
        return output.set_cost(problem, lse_mode=True, use_danskin=False)
