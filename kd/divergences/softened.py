"""Predictions softened by a temperature, and sums over classes that stay finite.

In the formulas of this package p = softmax(s / temperature) is the student, q =
softmax(t / temperature) the teacher, and 0 log 0 = 0, so that a class ruled out by
both (logit -inf) and a one-hot teacher need no special care.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Softened:
    """The field of losses on softened predictions."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def soften(self, logits: Float[Array, "b v"]) -> Float[Array, "b v"]:
        """log softmax(logits / temperature)."""
        return log_softmax(logits, self.temperature)


@dataclasses.dataclass(frozen=True)
class Rescaled(Softened):
    """Losses that are multiplied by temperature^2 unless told otherwise.

    Where the divergence is smooth its gradient shrinks like 1 / temperature^2, and
    the factor keeps a term's weight meaningful when the temperature changes
    (hinton2015distilling, section 2).
    """

    temperature_squared: bool = True
    """Multiply by temperature^2. The codes of SinKD and TRL, among others, do not."""

    @property
    def factor(self) -> float | Array:
        return self.temperature**2 if self.temperature_squared else 1.0


def log_softmax(
    logits: Float[Array, "... v"], temperature: float | Array
) -> Float[Array, "... v"]:
    """log softmax(logits / temperature) over the last axis.

    The largest logit is subtracted first: divided, it is no longer exact, and where
    the compiler fuses the two the sum of the probabilities is off by the rounding
    error of the quotient, 2e-4 at logits of 1e4 in float32.
    """
    largest = jnp.max(jax.lax.stop_gradient(logits), axis=-1, keepdims=True)
    largest = jnp.where(largest > -jnp.inf, largest, 0)  # or NaN, if all are ruled out
    return jax.nn.log_softmax((logits - largest) / temperature)


def relative_entropy(
    log_a: Float[Array, "b v"], log_b: Float[Array, "b v"]
) -> Float[Array, "b"]:
    """sum_v a (log a - log b), with value and gradient right where a = 0.

    Also where a is 0 in floating point only and b is 0 in truth.
    """
    possible = jnp.exp(log_a) > 0
    log_a = jnp.where(possible, log_a, 0)
    log_b = jnp.where(possible, log_b, 0)
    ratio = jnp.exp(log_a) * (log_a - log_b)
    return jnp.sum(jnp.where(possible, ratio, 0), axis=-1)


def cross_entropy(
    log_a: Float[Array, "b v"], log_b: Float[Array, "b v"]
) -> Float[Array, "b"]:
    """-sum_v a log b, with value and gradient right where a = 0."""
    possible = jnp.exp(log_a) > 0
    log_a = jnp.where(possible, log_a, 0)
    log_b = jnp.where(possible, log_b, 0)
    return -jnp.sum(jnp.where(possible, jnp.exp(log_a) * log_b, 0), axis=-1)


def log_mixture(
    log_a: Float[Array, "b v"], log_b: Float[Array, "b v"], weight: float | Array
) -> Float[Array, "b v"]:
    """log(weight a + (1 - weight) b); any number where a = b = 0."""
    # There logaddexp(-inf, -inf) would have the gradient NaN.
    log_a, log_b = without_impossible(log_a, log_b)
    return jnp.logaddexp(log_a + jnp.log(weight), log_b + jnp.log1p(-weight))


def without_impossible(
    log_a: Float[Array, "b v"], log_b: Float[Array, "b v"]
) -> tuple[Float[Array, "b v"], Float[Array, "b v"]]:
    """Both as they are, but equal (log 1) where both rule the class out."""
    possible = (log_a > -jnp.inf) | (log_b > -jnp.inf)
    return jnp.where(possible, log_a, 0), jnp.where(possible, log_b, 0)


def largest_exponent(like: Float[Array, "..."]) -> float:
    """Half the logarithm of the largest number of the dtype: 44 in float32."""
    return math.log(jnp.finfo(like.dtype).max) / 2
