"""What divergences have in common whose examples share a transport plan."""

import abc
import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kd.divergences.divergence import Divergence, check_same_classes
from kd.divergences.softened import log_softmax
from kd.objective import OverRows, masked_mean
from kd.objective.chunked import equal_weights, rows_at_once
from kd.transport import diagnostics, sharding, solver
from kd.transport.cost import L1, Cost
from kd.transport.cost_of_heads import STUDENT, TEACHER, costs_of_heads
from kd.types import Batch, Head, Metrics, TopLogits


@dataclasses.dataclass(frozen=True)
class BatchTransport(Divergence):
    """Divergences by transport between the rows of a batch, or of its groups.

    Subclasses are frozen dataclasses that define `_of_costs`. The arguments are
    described by `kd.divergences.SinKD`.
    """

    pairs: ClassVar[tuple[tuple[int, int], ...]] = ((STUDENT, TEACHER),)
    """Whose rows are transported onto whose."""
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
        points = self._soften(student), self._soften(teacher)
        return self._in_groups(self._group, *points, kept)

    def over_rows(
        self, batch: Batch, student: Head, teacher: Head | TopLogits | None
    ) -> OverRows | None:
        if not self.cost.adds_up_over_classes or not isinstance(teacher, Head):
            return None
        kept = batch["mask"]
        check_same_classes(
            type(self).__name__,
            *((len(x.hidden), x.num_outputs) for x in (student, teacher)),
        )
        costs = costs_of_heads(
            self.cost,
            student.emptied(kept),
            teacher.emptied(kept),
            self.temperature,
            pairs=self.pairs,
            num_groups=self.num_groups,
            num_classes=classes_at_once(len(kept)),
        )
        largest = self.cost.largest_between_probabilities
        check_resolved(type(self).__name__, self.epsilon, costs[0].dtype, largest)
        losses, metrics = self._in_groups(self._of_costs, *costs, kept)
        values = jnp.where(kept, losses, 0)
        return OverRows(None, batch, equal_weights(kept), metrics, values)

    def _in_groups(self, problem, *arrays):
        *_, kept = arrays
        losses, metrics = sharding.solve_groups(
            problem, *arrays, num_groups=self.num_groups
        )
        # A group without rows has no plan to speak of.
        filled = kept.reshape(self.num_groups, -1).any(axis=1)
        return losses, {
            name: masked_mean(of_groups, filled) for name, of_groups in metrics.items()
        }

    def _group(
        self, p, q, kept, *, axis: str | None
    ) -> tuple[Float[Array, "b"], Metrics]:
        """Losses of one group, on softened predictions, and metrics of its plan."""
        points = p, q
        costs = (
            sharding.cost_of_rows(self.cost, points[i], points[j], axis)
            for i, j in self.pairs
        )
        return self._of_costs(*costs, kept, axis=axis)

    @abc.abstractmethod
    def _of_costs(
        self, *costs_and_kept: Array, axis: str | None
    ) -> tuple[Float[Array, "b"], Metrics]:
        """`_group`, from the costs of the pairs."""

    def _soften(self, logits):
        return jnp.exp(log_softmax(logits, self.temperature))

    def _solve(self, cost, kept, axis):
        """The solution of the problem with equal masses on the kept rows."""
        row_mass, column_mass, _ = equal_masses(kept, cost.dtype, axis)
        return solver.solve(
            cost,
            row_mass,
            column_mass,
            epsilon=self.epsilon,
            num_iters=self.num_iters,
            largest_cost=self.cost.largest_between_probabilities,
            gradient=self.gradient,
            axis=axis,
        )

    def _watch(self, solution, cost, kept, axis) -> Metrics:
        row_mass, column_mass, _ = equal_masses(kept, cost.dtype, axis)
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


def classes_at_once(num_rows: int) -> int:
    """Of how many the logits of all rows are there at once: those of 4 MB."""
    return rows_at_once(num_rows, megabytes=4.0)


def equal_masses(
    kept: Bool[Array, "n"], dtype: jnp.dtype, axis: str | None
) -> tuple[Float[Array, "n"], Float[Array, "m"], Int[Array, ""]]:
    """1 / number of rows for every row here, for every column, and the number."""
    columns = sharding.gather(kept, axis)
    num_rows = jnp.sum(columns)
    share = 1 / jnp.maximum(num_rows, 1).astype(dtype)
    return kept * share, columns * share, num_rows
