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
from kd.transport import diagnostics, solver
from kd.transport.cost import L1, Cost


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

    def rows(self, student, teacher, where):
        p, q = self._soften(student), self._soften(teacher)
        kept = jnp.ones(len(p), bool) if where is None else where
        if self.num_groups == 1:
            return self._group_rows(p, q, kept)
        groups = [_split(array, self.num_groups) for array in (p, q, kept)]
        return jax.vmap(self._group_rows)(*groups).reshape(len(p))

    @abc.abstractmethod
    def _group_rows(self, p, q, kept) -> Float[Array, "b"]:
        """The losses of one group, on softened predictions."""

    def _soften(self, logits):
        return jax.nn.softmax(logits / self.temperature)

    def _transport(self, p, q, kept):
        """Solution and cost of the problem with equal masses on the kept rows."""
        cost = self.cost(p, q)
        mass = _equal_masses(kept, cost.dtype)
        solution = solver.solve(
            cost,
            mass,
            mass,
            epsilon=self.epsilon,
            num_iters=self.num_iters,
            largest_cost=self.cost.largest_between_probabilities,
            gradient=self.gradient,
        )
        return solution, cost


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
        epsilon: entropic regularisation, in units of the cost.
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
            holds whole groups they need not talk to each other.

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

    def _group_rows(self, p, q, kept):
        # Another way to the same sums would go here, e.g. one for two classes alone.
        solution, cost = self._transport(p, q, kept)
        num_rows = jnp.sum(kept)
        losses = num_rows * jnp.sum(solution.plan * cost, axis=1)
        if self.convention == "faithful":
            losses *= 0.001 * num_rows
        return losses

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
            self._soften(student), self._soften(teacher), kept
        )
        return solution.plan, cost

    def diagnostics(
        self,
        student: Float[Array, "b v"],
        teacher: Float[Array, "b v"],
        *,
        where: Bool[Array, "b"] | None = None,
    ) -> dict[str, Float[Array, ""]]:
        """What `kd.transport.diagnostics.diagnose` says of `plan`."""
        kept = jnp.ones(len(student), bool) if where is None else where
        plan, _ = self.plan(student, teacher, where=where)
        mass = _equal_masses(kept, plan.dtype)
        return diagnostics.diagnose(plan, mass, mass)


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

    def _group_rows(self, p, q, kept):
        return (
            self._entropic_cost(p, q, kept)
            - 0.5 * self._entropic_cost(p, p, kept)
            - 0.5 * self._entropic_cost(q, q, kept)
        )

    def _entropic_cost(self, x, y, kept):
        solution, cost = self._transport(x, y, kept)
        # The potentials of masses 1/b differ from those of the formula by constants
        # that are the same in all three terms.
        losses = solution.f + solution.g
        if self.gradient == "envelope":
            # Of no value, and with the gradient that Danskin's theorem gives.
            share = jnp.sum(kept) * jnp.sum(solution.plan * cost, axis=1)
            losses += share - jax.lax.stop_gradient(share)
        return losses


def _equal_masses(kept, dtype):
    return kept.astype(dtype) / jnp.maximum(jnp.sum(kept), 1)


def _split(array, num_groups):
    if array.shape[0] % num_groups:
        raise ValueError(
            f"a batch of {array.shape[0]} cannot be cut into {num_groups} equal groups"
        )
    return array.reshape(num_groups, -1, *array.shape[1:])
