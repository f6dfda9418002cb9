"""Transport of the student's predictions by plans of any solver."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd.divergences.batch_transport import check_resolved
from kd.divergences.divergence import Divergence
from kd.divergences.softened import Softened
from kd.transport import ott_solvers
from kd.transport.cost import L1, Cost


@dataclasses.dataclass(frozen=True)
class OptimalTransport(Softened, Divergence):
    """Cost of transporting all student onto all teacher outputs, by a solver's plan.

        C_ij = || p_i - q_j ||_1,   p = softmax(s / temperature), q likewise of t
        P    = argmin_P  <P, C> + epsilon KL(P | aa')
                         + rho_s KL(P 1 | a) + rho_t KL(P' 1 | a),     a_i = 1/b
        losses_i = b (sum_j P_ij C_ij + rho_s kl_i + rho_t kl'_i)

    with KL(x | a) = sum_i kl_i, kl_i = x_i log(x_i / a_i) - x_i + a_i. The mean is
    what the plan costs, its entropy left out as in `SinKD`. rho = epsilon tau /
    (1 - tau); at tau = 1 the marginals are met and the penalty is 0, below it a
    student's prediction that is far from all of the teacher's may stay where it is,
    at the price of rho.

    The plan is a constant in the gradient, which by Danskin's theorem is then that of
    the minimum above, entropy included, and not that of the mean itself: every p_i is
    pulled towards the q_j that it is sent to. `SinKD(gradient="unrolled")` also counts
    how the plan changes.

    Args:
        temperature: softens both predictions.
        epsilon: entropic regularisation, in units of the cost; above the rounding
            error of a cost, see `SinKD`.
        solver: `kd.transport.ott_solvers.Converged` or `LowRank`,
            `kd.transport.fixed_iterations.FixedIterations`, or any solver of OTT; for
            an experiment one that is a frozen dataclass.
        cost: C, one of `kd.transport.cost`, or your own.
        tau_student: in (0, 1], see above; below 1 student mass may be lost or made.
        tau_teacher: likewise for the teacher.

    Raises:
        ValueError: a setting is out of range; or, when called, a low-rank solver is
            given tau < 1, or epsilon is below the rounding error of a cost.

    Source: cuturi2022ott for the solvers, whose entropy is not relative to aa', see
    `kd.transport.ott_solvers.solve`; chizat2018scaling for unbalanced problems.
    """

    name = "ot"
    temperature: float = 2.0
    epsilon: float = 0.1
    _: dataclasses.KW_ONLY
    solver: ott_solvers.OTTSolver = ott_solvers.Converged()
    cost: Cost = L1()
    tau_student: float = 1.0
    tau_teacher: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive, got {self.epsilon}")
        for name in ("tau_student", "tau_teacher"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} is above 0 and at most 1, got {getattr(self, name)}"
                )

    def rows(self, student, teacher, where):
        return self.rows_with_metrics(student, teacher, where)[0]

    def rows_with_metrics(self, student, teacher, where):
        """The losses, and what the plan is like: its mass, whether it converged."""
        plan, cost, mass = self._solve(student, teacher, where)
        prices = (
            jnp.sum(plan.matrix * cost, axis=1)
            + self._penalty(self.tau_student, jnp.sum(plan.matrix, axis=1), mass)
            + self._penalty(self.tau_teacher, jnp.sum(plan.matrix, axis=0), mass)
        )
        num_rows = jnp.sum(mass > 0)
        metrics = {"transported_mass": jnp.sum(plan.matrix)}
        if plan.converged is not None:
            metrics["converged"] = plan.converged.astype(cost.dtype)
        return num_rows * prices, metrics

    def plan(
        self,
        student: Float[Array, "b v"],
        teacher: Float[Array, "b v"],
        *,
        where: Bool[Array, "b"] | None = None,
    ) -> tuple[Float[Array, "b b"], Float[Array, "b b"]]:
        """The transport plan of total mass 1 and the cost, rows being the student."""
        plan, cost, _ = self._solve(student, teacher, where)
        return plan.matrix, cost

    def _solve(self, student, teacher, where):
        p, q = jnp.exp(self.soften(student)), jnp.exp(self.soften(teacher))
        cost = self.cost(p, q)
        largest = self.cost.largest_between_probabilities
        check_resolved("OptimalTransport", self.epsilon, cost.dtype, largest)
        kept = jnp.ones(len(cost), bool) if where is None else where
        mass = kept / jnp.maximum(jnp.sum(kept), 1).astype(cost.dtype)
        plan = ott_solvers.solve(
            self.solver,
            cost,
            mass,
            mass,
            epsilon=self.epsilon,
            row_tau=self.tau_student,
            column_tau=self.tau_teacher,
        )
        return plan, cost, mass

    def _penalty(self, tau, sums, mass):
        """rho kl_i of every row."""
        if tau == 1:
            return jnp.zeros_like(sums)
        exists = (sums > 0) & (mass > 0)
        ratio = jnp.where(exists, sums, 1) / jnp.where(exists, mass, 1)
        rho = self.epsilon * tau / (1 - tau)
        return rho * (sums * jnp.log(ratio) - sums + mass)
