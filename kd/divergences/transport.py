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

from kd.divergences.divergence import Divergence
from kd.transport import cost as costs
from kd.transport import solver


@dataclasses.dataclass(frozen=True)
class SinKD(Divergence):
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

    Source: cui2024sinkhorn, batch-wise reformulation. The constant 0.001 appears
    in the code only, which also ignores its temperature argument (always 2).
    """

    name = "sinkd"
    temperature: float = 2.0
    epsilon: float = 0.1
    num_iters: int = 20
    convention: Literal["invariant", "faithful"] = "invariant"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive, got {self.epsilon}")
        if self.num_iters < 1:
            raise ValueError(f"num_iters must be at least 1, got {self.num_iters}")
        if self.convention not in ("invariant", "faithful"):
            raise ValueError(
                f'convention is "invariant" or "faithful", got {self.convention!r}'
            )

    def rows(self, student, teacher, where):
        plan, cost = self.plan(student, teacher, where=where)
        num_rows = jnp.sum(where) if where is not None else student.shape[0]
        losses = num_rows * jnp.sum(plan * cost, axis=1)
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
        """The transport plan of total mass 1 and the cost, rows being the student."""
        p = jax.nn.softmax(student / self.temperature)
        q = jax.nn.softmax(teacher / self.temperature)
        cost = costs.l1(p, q)
        kept = jnp.ones(len(p), bool) if where is None else where
        mass = kept.astype(cost.dtype) / jnp.maximum(jnp.sum(kept), 1)
        plan = solver.solve(
            cost,
            mass,
            mass,
            epsilon=self.epsilon,
            num_iters=self.num_iters,
            largest_cost=2.0,
        )
        return plan, cost
