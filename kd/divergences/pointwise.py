"""Divergences that compare the two predictions of one example at a time.

In the formulas p = softmax(s / temperature) is the student, q = softmax(t /
temperature) the teacher, and 0 log 0 = 0, so that a class ruled out by both
(logit -inf) and a one-hot teacher need no special care.

KL, reverse KL and JS are multiplied by temperature^2 unless told otherwise: their
gradients shrink like 1 / temperature^2, and the factor keeps a term's weight
meaningful when the temperature changes (hinton2015distilling, section 2).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.divergences.divergence import Divergence


@dataclasses.dataclass(frozen=True)
class _Softened(Divergence):
    temperature: float = 1.0
    temperature_squared: bool = True
    """Multiply by temperature^2. The SinKD code, among others, does not."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def _soften(self, logits: Float[Array, "b v"]) -> Float[Array, "b v"]:
        return jax.nn.log_softmax(logits / self.temperature)

    @property
    def _factor(self) -> float:
        return self.temperature**2 if self.temperature_squared else 1.0


@dataclasses.dataclass(frozen=True)
class KL(_Softened):
    """Forward Kullback-Leibler divergence KL(teacher || student).

        losses_i = temperature^2 sum_v q_iv (log q_iv - log p_iv)

    Nats per example. Infinite where the student rules out a class that the
    teacher does not.

    Source: hinton2015distilling, section 2. `SoftCrossEntropy` has the same
    gradient.
    """

    name = "kl"

    def rows(self, student, teacher, where):
        del where
        return self._factor * _relative_entropy(
            self._soften(teacher), self._soften(student)
        )


@dataclasses.dataclass(frozen=True)
class ReverseKL(_Softened):
    """Reverse Kullback-Leibler divergence KL(student || teacher).

        losses_i = temperature^2 sum_v p_iv (log p_iv - log q_iv)

    Nats per example. The student is drawn to modes of the teacher.

    Source: wen2023fdistill, the step-wise form.
    """

    name = "rkl"

    def rows(self, student, teacher, where):
        del where
        return self._factor * _relative_entropy(
            self._soften(student), self._soften(teacher)
        )


@dataclasses.dataclass(frozen=True)
class JS(_Softened):
    """Jensen-Shannon divergence, skewed by beta.

        m = beta q + (1 - beta) p
        losses_i = temperature^2 (beta KL(q_i || m_i) + (1 - beta) KL(p_i || m_i))

    Nats per example, at most log 2 at beta = 1/2 and temperature 1. Tends to 0,
    not to a KL, as beta tends to 0 or 1.

    Source: agarwal2024gkd, generalized JSD. The JS of the SinKD code takes
    probabilities for their logarithms and goes negative; it is not reproduced here.
    """

    name = "js"
    beta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < 1:
            raise ValueError(f"beta must lie between 0 and 1, got {self.beta}")

    def rows(self, student, teacher, where):
        del where
        log_p, log_q = self._soften(student), self._soften(teacher)
        # A class that both rule out would give logaddexp(-inf, -inf), whose
        # gradient is NaN: let it weigh nothing instead.
        possible = (log_p > -jnp.inf) | (log_q > -jnp.inf)
        log_m = jnp.logaddexp(
            jnp.where(possible, log_q, 0) + jnp.log(self.beta),
            jnp.where(possible, log_p, 0) + jnp.log1p(-self.beta),
        )
        return self._factor * (
            self.beta * _relative_entropy(log_q, log_m)
            + (1 - self.beta) * _relative_entropy(log_p, log_m)
        )


@dataclasses.dataclass(frozen=True)
class TotalVariation(Divergence):
    """Total variation distance, half the L1 distance of the probabilities.

        losses_i = 1/2 sum_v |p_iv - q_iv|

    Between 0 and 1. At p = q the subgradient 0 is taken. No factor of the
    temperature is applied.

    Source: wen2023fdistill. The "sample-wise Sinkhorn" ablation of the SinKD
    code is 0.002 times the sum of this over the batch.
    """

    name = "tvd"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def rows(self, student, teacher, where):
        del where
        p = jax.nn.softmax(student / self.temperature)
        q = jax.nn.softmax(teacher / self.temperature)
        return 0.5 * jnp.abs(p - q).sum(axis=-1)


@dataclasses.dataclass(frozen=True)
class SoftCrossEntropy(_Softened):
    """Cross-entropy with the teacher's distribution, KL plus the teacher's entropy.

        losses_i = -temperature^2 sum_v q_iv log p_iv

    Nats per example. Not zero at p = q.

    Source: hinton2015distilling, section 2; with `temperature_squared=False` the
    `kd` loss of the SinKD code.
    """

    name = "soft_ce"

    def rows(self, student, teacher, where):
        del where
        log_p, log_q = self._soften(student), self._soften(teacher)
        return -self._factor * jnp.sum(_weigh(jnp.exp(log_q), log_p), axis=-1)


def _relative_entropy(
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


def _weigh(weights: Array, values: Array) -> Array:
    """weights * values, 0 where the weight is, even if the value is infinite."""
    return jnp.where(weights > 0, weights * jnp.where(weights > 0, values, 0), 0)
