"""Divergences that transport the student's predictions onto the teacher's.

Unlike the pointwise ones they compare all student outputs of a batch with all
teacher outputs, so the value depends on how a data set is cut into batches. They
do not pair example i with itself: pairing comes from the other terms of a mix.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd.divergences.batch_transport import BatchTransport, equal_masses
from kd.transport import diagnostics, line, sharding
from kd.transport.cost import L1
from kd.transport.cost_of_heads import STUDENT, TEACHER

_LONG_BATCH = 128
"""From this size on two classes are solved on the line, below by matrices."""


@dataclasses.dataclass(frozen=True)
class SinKD(BatchTransport):
    """Sinkhorn distance between all student and all teacher outputs of a batch.

        C_ij = || p_i - q_j ||_1,   p = softmax(s / temperature), q likewise of t
        P    = diag(u) exp(-C / epsilon) diag(v)       after num_iters iterations
        losses_i = b sum_j P_ij C_ij

    with masses 1/b on both sides, so that the mean is the transport cost at total
    mass 1, whatever the batch size. Each iteration scales the rows (student), then
    the columns (teacher); the gradient runs through all of them. Between 0 and 2.

    Not zero at p = q: the entropic plan is blurred. At a single class it is 0, at a
    batch of one it is the L1 distance.

    Args:
        temperature: softens both predictions.
        epsilon: entropic regularisation, in units of the cost; above the rounding
            error of a cost, 2.4e-7 for `L1` in float32, or a `ValueError` says so.
        num_iters: Sinkhorn iterations.
        convention: "invariant" as above; "faithful" for the authors' code, whose
            masses are all ones and whose sum is multiplied by 0.001. Its loss is
            0.001 b times the invariant one: it grows with the batch.
        gradient: "unrolled", the authors', through the iterations; "implicit", of
            the converged plan; "envelope", with the plan held constant. See
            `kd.transport.solver.solve`.
        cost: C, one of `kd.transport.cost`, or your own.
        num_groups: cuts the batch into so many equal runs of neighbouring rows, each
            with a plan of its own; b is then the size of a group. Where every device
            holds whole groups they need not talk to each other; one group over
            several devices is solved as `kd.transport.sharding` says.

    Source: cui2024sinkhorn, batch-wise reformulation. The constant 0.001 appears
    in the code only, which also ignores its temperature argument (always 2).
    """

    name = "sinkd"
    convention: Literal["invariant", "faithful"] = "invariant"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.convention not in ("invariant", "faithful"):
            raise ValueError(
                f'convention is "invariant" or "faithful", got {self.convention!r}'
            )

    def _group(self, p, q, kept, *, axis):
        if not self._on_line(p, axis):
            return super()._group(p, q, kept, axis=axis)
        costs, metrics = self._line(p, q, kept, axis)
        return self._shares(costs, kept, axis), metrics

    def _shares(self, costs, kept, axis):
        """The losses of rows whose mass is moved at these costs."""
        _, _, num_rows = equal_masses(kept, costs.dtype, axis)
        losses = num_rows * costs
        if self.convention == "faithful":
            losses *= 0.001 * num_rows
        return losses

    def _on_line(self, p, axis) -> bool:
        possible = p.shape[1] == 2 and self.cost == L1() and self.gradient == "unrolled"
        return possible and (axis is not None or len(p) >= _LONG_BATCH)

    def _of_costs(self, *costs_and_kept, axis):
        cost, kept = costs_and_kept
        solution = self._solve(cost, kept, axis)
        losses = self._shares(jnp.sum(solution.plan * cost, axis=1), kept, axis)
        return losses, self._watch(solution, cost, kept, axis)

    def _line(self, p, q, kept, axis):
        # Two numbers an example: every device solves the whole problem.
        x, y = sharding.gather(p[:, 0], axis), sharding.gather(q[:, 0], axis)
        _, mass, _ = equal_masses(kept, p.dtype, axis)
        solution = line.solve(
            x,
            y,
            mass,
            mass,
            epsilon=self.epsilon,
            num_iters=self.num_iters,
            largest_cost=self.cost.largest_between_probabilities,
        )
        metrics = diagnostics.diagnose(
            costs=solution.costs,
            sums=solution.sums,
            f=solution.f,
            g=solution.g,
            own_g=solution.g,
            own_cost=2 * jnp.abs(x - y),
            row_mass=mass,
            column_mass=mass,
            errors=solution.errors,
            epsilon=self.epsilon,
        )
        return sharding.own(solution.costs, len(p), axis), metrics

    def plan(
        self,
        student: Float[Array, "b v"],
        teacher: Float[Array, "b v"],
        *,
        where: Bool[Array, "b"] | None = None,
    ) -> tuple[Float[Array, "b b"], Float[Array, "b b"]]:
        """The transport plan of total mass 1 and the cost, rows being the student.

        Of the batch as one group.
        """
        kept = jnp.ones(len(student), bool) if where is None else where
        cost = self.cost(self._soften(student), self._soften(teacher))
        return self._solve(cost, kept, axis=None).plan, cost


@dataclasses.dataclass(frozen=True)
class SinkhornDivergence(BatchTransport):
    """Sinkhorn distance without its blur: zero when student and teacher agree.

        S = OT(p, q) - OT(p, p) / 2 - OT(q, q) / 2
        OT(p, q) = min_P  sum_ij P_ij C_ij + epsilon P_ij log(b^2 P_ij)
                 = (1/b) sum_i f_i + g_i,     f, g the potentials of the optimal plan
        losses_i = example i's part of S, by its f_i and g_i in the three terms

    over plans with masses 1/b. The mean is S, from 0 to 2, and at least 0 once the
    iterations have converged; a single row can be negative. Where SinKD pulls the
    student's predictions together (the blur is cheapest to pay at one point), this
    pulls them onto the teacher's. Three problems to solve instead of one.

    The arguments are those of `SinKD`. With gradient="unrolled" the gradient is that
    of S as computed after `num_iters` iterations; "envelope", the customary one, holds
    the plans constant and agrees with it, and with "implicit", at convergence.

    Source: feydy2019interpolating, eq. 3; zero at p = q for any `num_iters`, because
    all three terms are solved alike.
    """

    name = "sinkhorn_divergence"
    pairs = (STUDENT, TEACHER), (STUDENT, STUDENT), (TEACHER, TEACHER)

    def _of_costs(self, *costs_and_kept, axis):
        *costs, kept = costs_and_kept
        solutions = [self._solve(cost, kept, axis) for cost in costs]
        between, *among = (
            self._entropic_cost(solution, cost, kept, axis)
            for solution, cost in zip(solutions, costs, strict=True)
        )
        losses = between - 0.5 * sum(among)
        return losses, self._watch(solutions[0], costs[0], kept, axis)

    def _entropic_cost(self, solution, cost, kept, axis):
        # The potentials of masses 1/b differ from those of the formula by constants
        # that are the same in all three terms.
        losses = solution.f + sharding.own(solution.g, len(cost), axis)
        if self.gradient == "envelope":
            # Of no value, and with the gradient that Danskin's theorem gives.
            _, _, num_rows = equal_masses(kept, cost.dtype, axis)
            share = num_rows * jnp.sum(solution.plan * cost, axis=1)
            losses += share - jax.lax.stop_gradient(share)
        return losses
