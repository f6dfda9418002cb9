"""Divergences that transport the student's predictions onto the teacher's.

Unlike the pointwise ones they compare all student outputs of a batch with all
teacher outputs, so the value depends on how a data set is cut into batches. They
do not pair example i with itself: pairing comes from the other terms of a mix.
"""

import abc
import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd.divergences.divergence import Divergence
from kd.divergences.softened import log_softmax
from kd.objective import masked_mean
from kd.transport import diagnostics, line, sharding, solver
from kd.transport.cost import L1, Cost
from kd.types import Metrics

_LONG_BATCH = 128
"""From this size on two classes are solved on the line, below by matrices."""


@dataclasses.dataclass(frozen=True)
class _BatchTransport(Divergence):
    temperature: float = 2.0
    epsilon: float = 0.1
    num_iters: int = 20
    _: dataclasses.KW_ONLY
    gradient: solver.Gradient = "unrolled"
    cost: Cost = L1()
    num_groups: int = 1

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.num_groups < 1:
            raise ValueError(f"num_groups must be at least 1, got {self.num_groups}")
        solver.check_settings(self.epsilon, self.num_iters, self.gradient)

    def problem(self, num_rows: int) -> str:
        if num_rows % self.num_groups == 0:
            return ""
        return (
            f"{self.name}.num_groups {self.num_groups} does not divide the {num_rows} "
            "rows of a batch, or of a part of it"
        )

    def rows(self, student, teacher, where):
        return self.rows_with_metrics(student, teacher, where)[0]

    def rows_with_metrics(self, student, teacher, where):
        largest = self.cost.largest_between_probabilities
        check_resolved(type(self).__name__, self.epsilon, student.dtype, largest)
        kept = jnp.ones(len(student), bool) if where is None else where
        losses, metrics = sharding.solve_groups(
            self._group,
            self._soften(student),
            self._soften(teacher),
            kept,
            num_groups=self.num_groups,
        )
        # A group without rows has no plan to speak of.
        filled = kept.reshape(self.num_groups, -1).any(axis=1)
        return losses, {
            name: masked_mean(of_groups, filled) for name, of_groups in metrics.items()
        }

    @abc.abstractmethod
    def _group(
        self, p, q, kept, *, axis: str | None
    ) -> tuple[Float[Array, "b"], Metrics]:
        """Losses of one group, on softened predictions, and metrics of its plan."""

    def _soften(self, logits):
        return jnp.exp(log_softmax(logits, self.temperature))

    def _transport(self, p, q, kept, axis):
        """Solution and cost of the problem with equal masses on the kept rows."""
        cost = sharding.cost_of_rows(self.cost, p, q, axis)
        row_mass, column_mass, _ = _equal_masses(kept, cost.dtype, axis)
        solution = solver.solve(
            cost,
            row_mass,
            column_mass,
            epsilon=self.epsilon,
            num_iters=self.num_iters,
            largest_cost=self.cost.largest_between_probabilities,
            gradient=self.gradient,
            axis=axis,
        )
        return solution, cost

    def _watch(self, solution, cost, kept, axis) -> Metrics:
        row_mass, column_mass, _ = _equal_masses(kept, cost.dtype, axis)
        # The columns with the numbers of these rows.
        columns = sharding.own(jnp.arange(cost.shape[1]), len(cost), axis)
        return diagnostics.diagnose(
            costs=jnp.sum(solution.plan * cost, axis=1),
            sums=solution.plan.sum(axis=1),
            f=solution.f,
            g=solution.g,
            own_g=solution.g[columns],
            own_cost=jnp.take_along_axis(cost, columns[:, None], axis=1)[:, 0],
            row_mass=row_mass,
            column_mass=column_mass,
            errors=solution.errors,
            epsilon=self.epsilon,
            axis=axis,
        )


@dataclasses.dataclass(frozen=True)
class SinKD(_BatchTransport):
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
        on_line = self._on_line(p, axis)
        costs, metrics = (self._line if on_line else self._matrix)(p, q, kept, axis)
        _, _, num_rows = _equal_masses(kept, costs.dtype, axis)
        losses = num_rows * costs
        if self.convention == "faithful":
            losses *= 0.001 * num_rows
        return losses, metrics

    def _on_line(self, p, axis) -> bool:
        possible = p.shape[1] == 2 and self.cost == L1() and self.gradient == "unrolled"
        return possible and (axis is not None or len(p) >= _LONG_BATCH)

    def _matrix(self, p, q, kept, axis):
        solution, cost = self._transport(p, q, kept, axis)
        costs = jnp.sum(solution.plan * cost, axis=1)
        return costs, self._watch(solution, cost, kept, axis)

    def _line(self, p, q, kept, axis):
        # Two numbers an example: every device solves the whole problem.
        x, y = sharding.gather(p[:, 0], axis), sharding.gather(q[:, 0], axis)
        _, mass, _ = _equal_masses(kept, p.dtype, axis)
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
        solution, cost = self._transport(
            self._soften(student), self._soften(teacher), kept, axis=None
        )
        return solution.plan, cost


@dataclasses.dataclass(frozen=True)
class SinkhornDivergence(_BatchTransport):
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

    def _group(self, p, q, kept, *, axis):
        solution, cost = self._transport(p, q, kept, axis)
        losses = self._entropic_cost(solution, cost, kept, axis)
        for same in (p, q):
            losses -= 0.5 * self._entropic_cost(
                *self._transport(same, same, kept, axis), kept, axis
            )
        return losses, self._watch(solution, cost, kept, axis)

    def _entropic_cost(self, solution, cost, kept, axis):
        # The potentials of masses 1/b differ from those of the formula by constants
        # that are the same in all three terms.
        losses = solution.f + sharding.own(solution.g, len(cost), axis)
        if self.gradient == "envelope":
            # Of no value, and with the gradient that Danskin's theorem gives.
            _, _, num_rows = _equal_masses(kept, cost.dtype, axis)
            share = num_rows * jnp.sum(solution.plan * cost, axis=1)
            losses += share - jax.lax.stop_gradient(share)
        return losses


def check_resolved(
    name: str, epsilon: float | Array, dtype: jnp.dtype, largest_cost: float
) -> None:
    """Raises ValueError if epsilon is less than the rounding error of a cost.

    The exponents cost / epsilon are then off by more than 1, and the plan is noise.
    One that follows the optimizer step is not known here and not checked.

    Args:
        name: of the loss, for the message.
        epsilon: entropic regularisation.
        dtype: of the cost.
        largest_cost: its bound; 1 is taken where there is none.
    """
    scale = largest_cost if largest_cost < float("inf") else 1.0
    least = float(jnp.finfo(dtype).eps) * scale
    if isinstance(epsilon, float | int) and epsilon < least:
        raise ValueError(
            f"{name}: epsilon must be at least {least:.2g} with logits of {dtype}, "
            f"whose rounding errors of a cost are as large, got {epsilon}"
        )


def _equal_masses(kept, dtype, axis):
    """1 / number of rows for every row here, for every column, and the number."""
    columns = sharding.gather(kept, axis)
    num_rows = jnp.sum(columns)
    share = 1 / jnp.maximum(num_rows, 1).astype(dtype)
    return kept * share, columns * share, num_rows
