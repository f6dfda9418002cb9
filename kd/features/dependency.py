"""Wasserstein dependency: what a critic of bounded slope tells of pairs."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.features.contracting import contracting
from kd.features.feature import VectorLoss
from kd.features.norms import unit
from kd.features.projection import linear_parameters


@dataclasses.dataclass(frozen=True, kw_only=True)
class WassersteinDependency(VectorLoss):
    """A lower bound, negated, of the dependence of student and teacher.

    A critic f tells pairs of one example from pairs of two,

        losses_i = log(1/m sum_j exp f(x_i, y_j)) - f(x_i, y_i)

    over the m examples of a batch, x and y being the features of student and teacher at
    length 1. The critic is learned with the student and 1-Lipschitz times `slope`,
    exactly: a network of two layers whose matrices are divided by their largest
    singular value where that exceeds 1. Nats per example, at least -log m; 0 for a
    critic that tells nothing. Couples the examples.

    Args:
        student_layer: which of the student's layers.
        teacher_layer: which of the teacher's.
        read: how positions become a vector: "mean", "first" or "all".
        slope: Lipschitz constant of the critic.
        width: hidden units of the critic.

    Source: ozair2019wasserstein, whose two sides are views of the same data. There the
    slope is bounded by a penalty on the gradient at random interpolates, and features
    have any length, which a student could grow without end.
    """

    name = "wasserstein_dependency"
    slope: float = 10.0
    width: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.slope > 0:
            raise ValueError(f"slope must be positive, got {self.slope}")
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")

    def parameters(self, key, student_width, teacher_width, num_classes):
        del num_classes
        first, second = jax.random.split(key)
        return {
            "first": linear_parameters(
                first, student_width + teacher_width, self.width
            ),
            "second": linear_parameters(second, self.width, 1)["kernel"],
        }

    def rows(self, params, student, teacher, labels, where):
        del labels
        scores = self.critic(params, student, teacher)
        kept = jnp.where(where[None], scores, -jnp.inf)
        count = jnp.maximum(jnp.sum(where), 1).astype(scores.dtype)
        # A row of nothing but -inf has no gradient that is a number.
        kept = jnp.where(where[:, None], kept, 0)
        baseline = jax.nn.logsumexp(kept, axis=1) - jnp.log(count)
        return baseline - jnp.diagonal(scores)

    def critic(
        self, params, student: Float[Array, "b d"], teacher: Float[Array, "c e"]
    ) -> Float[Array, "b c"]:
        """f(x_i, y_j) of all pairs of rows."""
        kernel = contracting(params["first"]["kernel"])
        ours, theirs = jnp.split(kernel, [student.shape[1]])
        # The first layer of a pair is the sum of what both sides give to it.
        units = (unit(student) @ ours)[:, None] + (unit(teacher) @ theirs)[None]
        units = jax.nn.relu(units + params["first"]["bias"])
        return self.slope * (units @ contracting(params["second"]))[..., 0]
