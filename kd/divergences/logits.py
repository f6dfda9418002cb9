"""Losses on the logits themselves, and logits brought to one scale."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd.divergences.divergence import Divergence


@dataclasses.dataclass(frozen=True)
class LogitMSE(Divergence):
    """Mean squared difference of the logits.

        losses_i = 1/v sum_v (s_iv - amplitude t_iv)^2

    Unlike the divergences of predictions it sees a constant added to all logits.
    Classes ruled out by both (logit -inf) do not count; it is infinite where one
    rules out what the other does not.

    The outputs may also be numbers, those of a regression.

    Args:
        amplitude: factor on the teacher's logits, positive.

    Source: ba2014deep (which sums over the classes); with an amplitude that
    grows from 0 to 1 the first phase of jafari2021annealing.
    """

    name = "logit_mse"
    row_by_row = True
    amplitude: float = 1.0

    def __post_init__(self) -> None:
        if not self.amplitude > 0:
            raise ValueError(f"amplitude must be positive, got {self.amplitude}")

    @property
    def reads_classes(self) -> bool:
        return False

    def rows(self, student, teacher, where):
        del where
        squared, counted = squared_differences(student, teacher, self.amplitude)
        return jnp.mean(squared, axis=-1, where=counted)


def squared_differences(
    student: Float[Array, "b v"],
    teacher: Float[Array, "b v"],
    amplitude: float | Float[Array, ""],
) -> tuple[Float[Array, "b v"], Bool[Array, "b v"]]:
    """(s_iv - amplitude t_iv)^2, and which classes count.

    Those ruled out by both (logit -inf) do not, and are 0; the square is infinite where
    one rules out what the other does not.
    """
    teacher = jnp.where(teacher > -jnp.inf, amplitude * teacher, -jnp.inf)
    both = (student > -jnp.inf) & (teacher > -jnp.inf)
    either = (student > -jnp.inf) | (teacher > -jnp.inf)
    difference = jnp.where(both, student, 0) - jnp.where(both, teacher, 0)
    return jnp.where(both == either, jnp.square(difference), jnp.inf), either


@dataclasses.dataclass(frozen=True)
class Standardized(Divergence):
    """Another divergence, on logits of mean 0 and standard deviation 1 in every row.

        z' = (z - mean_v z) / std_v z            for the student and for the teacher
        losses_i = divergence(s', t')_i

    The student then only has to match the shape of the teacher's logits, not their
    scale. Classes with a logit of -inf stay so and do not count; logits that are all
    equal become 0, and have the gradient of logits that are only centred.

    Args:
        divergence: what compares the standardised logits; its temperature is the
            base temperature of the paper.
        correction: the variance is divided by v - correction.

    Source: sun2024standardization. The authors' code divides
    by v - 1, `correction=1`, as the paper does not.
    """

    divergence: Divergence
    correction: int = 0

    def __post_init__(self) -> None:
        if self.correction not in (0, 1):
            raise ValueError(f"correction is 0 or 1, got {self.correction}")
        object.__setattr__(self, "name", f"standardized_{self.divergence.name}")
        object.__setattr__(self, "row_by_row", self.divergence.row_by_row)

    def rows(self, student, teacher, where):
        return self.divergence.rows(
            self._standardize(student), self._standardize(teacher), where
        )

    def _standardize(self, logits: Float[Array, "b v"]) -> Float[Array, "b v"]:
        counted = logits > -jnp.inf
        num_classes = jnp.sum(counted, axis=-1, keepdims=True)
        values = jnp.where(counted, logits, 0)
        mean = jnp.sum(values, axis=-1, keepdims=True) / jnp.maximum(num_classes, 1)
        # Of equal logits the mean may be off by rounding, which is no deviation.
        highest = jnp.max(logits, axis=-1, keepdims=True)
        lowest = jnp.min(logits, axis=-1, keepdims=True, where=counted, initial=jnp.inf)
        centred = jnp.where(counted, values - mean, 0)
        nothing = centred - jax.lax.stop_gradient(centred)
        centred = jnp.where(highest > lowest, centred, nothing)
        variance = jnp.sum(jnp.square(centred), axis=-1, keepdims=True) / jnp.maximum(
            num_classes - self.correction, 1
        )
        # sqrt has no finite gradient at 0.
        deviation = jnp.sqrt(jnp.where(variance > 0, variance, 1))
        return jnp.where(counted, centred / deviation, -jnp.inf)
