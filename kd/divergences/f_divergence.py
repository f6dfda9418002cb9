"""Divergences sum_v p f(q / p) of a convex f, its generator, and their relatives.

All of them are 0 at p = q. The Kullback-Leibler family has a file of its own.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.divergences.absolute import absolute_difference
from kd.divergences.divergence import Divergence
from kd.divergences.softened import (
    Rescaled,
    Softened,
    largest_exponent,
    without_impossible,
)


@dataclasses.dataclass(frozen=True)
class FDivergence(Rescaled, Divergence):
    """Any f-divergence, given its generator.

        losses_i = temperature^2 sum_v p_iv f(q_iv / p_iv)

    f(t) = t log t gives `KL`, -log t `ReverseKL`, |t - 1| / 2 `TotalVariation` and
    (t log t - (t + 1) log((t + 1) / 2)) / 2 `JS`; those have no trouble with extreme
    logits. Here the ratio is held between e^-44 and e^44 (in float32), or where f or
    its slope leaves the numbers of the dtype if that comes first: beyond, the
    divergence stops growing and its gradient vanishes.

    Args:
        generator: f, elementwise, convex on the positive numbers, f(1) = 0. Of one
            with an absolute value JAX takes 1 for the slope at 0;
            `kd.divergences.absolute` has one with 0.
        at_zero: the limit of f(t) at 0, taken where the teacher rules a class out.
            By default the class counts as the smallest ratio.
        at_infinity: the limit of f(t) / t, taken where the student does. By default
            the class counts as the largest ratio.

    Source: wen2023fdistill (whose generator of JS is twice the one above).
    """

    name = "f_divergence"
    row_by_row = True
    coarsens = True
    generator: Callable[[Array], Array] = dataclasses.field(kw_only=True)
    at_zero: float | None = dataclasses.field(default=None, kw_only=True)
    at_infinity: float | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        with jax.ensure_compile_time_eval():
            at_one = float(self.generator(jnp.float32(1.0)))
        if not abs(at_one) < 1e-6:
            raise ValueError(f"the generator must be 0 at 1, got {at_one}")

    def rows(self, student, teacher, where):
        del where
        log_p, log_q = without_impossible(self.soften(student), self.soften(teacher))
        log_ratio = jnp.clip(log_q - log_p, *self._reach(student.dtype))
        # The larger of the two is trusted where the ratio is held.
        weight = jnp.exp(jnp.where(log_q > log_p, log_q - log_ratio, log_p))
        terms = weight * self.generator(jnp.exp(log_ratio))
        smallest = jnp.finfo(student.dtype).tiny  # times infinity is infinity, not NaN
        if self.at_zero is not None:
            p = jnp.maximum(jnp.exp(log_p), smallest)
            terms = jnp.where(log_q == -jnp.inf, p * self.at_zero, terms)
        if self.at_infinity is not None:
            q = jnp.maximum(jnp.exp(log_q), smallest)
            terms = jnp.where(log_p == -jnp.inf, q * self.at_infinity, terms)
        return self.factor * jnp.sum(terms, axis=-1)

    def _reach(self, dtype: jnp.dtype) -> tuple[float, float]:
        """The range of log ratios, around 0, in which nothing overflows."""
        with jax.ensure_compile_time_eval():
            bound = largest_exponent(jnp.zeros((), dtype))
            log_ratios = jnp.linspace(-bound, bound, 2 * _STEPS + 1, dtype=dtype)
            ratios = jnp.exp(log_ratios)
            found, slopes = jax.jvp(self.generator, (ratios,), (jnp.ones_like(ratios),))
            # With room for temperature^2, weights and a sum: the gradient multiplies
            # them with f before it does with the probability.
            most = float(jnp.finfo(dtype).max) / 2**24
            largest = jnp.abs(jnp.stack([found, slopes, ratios * slopes])).max(axis=0)
            held = (largest < most).at[_STEPS].set(True).tolist()  # False of NaN
            log_ratios = log_ratios.tolist()
        below = next((i for i in range(_STEPS, -1, -1) if not held[i]), -1) + 1
        above = next((i for i in range(_STEPS, len(held)) if not held[i]), len(held))
        return log_ratios[below], log_ratios[above - 1]


_STEPS = 1024
"""In which the reach of a generator is looked for, upwards and downwards."""


@dataclasses.dataclass(frozen=True)
class TotalVariation(Softened, Divergence):
    """Total variation distance, half the L1 distance of the probabilities.

        losses_i = 1/2 sum_v |p_iv - q_iv|

    Between 0 and 1. Where p_iv = q_iv the subgradient 0 is taken. No factor of the
    temperature is applied.

    Source: wen2023fdistill, eq. 9. The "sample-wise Sinkhorn" ablation of the SinKD
    code is 0.002 times the sum of this over the batch; part of the f-DISTILL code
    multiplies by temperature^2; that of ATKD averages over the padding.
    """

    name = "tvd"
    row_by_row = True
    coarsens = True

    def rows(self, student, teacher, where):
        del where
        p, q = jnp.exp(self.soften(student)), jnp.exp(self.soften(teacher))
        return 0.5 * absolute_difference(p, q).sum(axis=-1)


@dataclasses.dataclass(frozen=True)
class Alpha(Rescaled, Divergence):
    """Alpha divergence (Amari's, in Cichocki's parametrisation), a family of KLs.

        losses_i = temperature^2 (sum_v q_iv^alpha p_iv^(1 - alpha) - 1)
                   / (alpha (alpha - 1))

    Tends to `KL` as alpha tends to 1 and to `ReverseKL` as it tends to 0. 1/2 is 4
    times `Hellinger`, 2 is half of `ChiSquared`, -1 half of the chi-squared of
    student against teacher. The ratio of a single class counts with at most e^44
    (in float32). Infinite where the student (alpha >= 1) or the teacher (alpha <= 0)
    rules out what the other does not.

    Args:
        alpha: any number but 0 and 1.

    Source: cichocki2010families.
    """

    name = "alpha"
    row_by_row = True
    coarsens = True
    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha in (0, 1):
            raise ValueError(
                "alpha must not be 0, which is ReverseKL, or 1, which is KL, got "
                f"{self.alpha}"
            )

    def rows(self, student, teacher, where):
        del where
        return self.factor * _alpha_divergence(
            self.soften(student), self.soften(teacher), self.alpha
        )


@dataclasses.dataclass(frozen=True)
class Hellinger(Rescaled, Divergence):
    """Squared Hellinger distance.

        losses_i = temperature^2 / 2 sum_v (sqrt(p_iv) - sqrt(q_iv))^2

    Between 0 and 1 at temperature 1.

    Source: cichocki2010families.
    """

    name = "hellinger"
    row_by_row = True
    coarsens = True

    def rows(self, student, teacher, where):
        del where
        return (self.factor / 4) * _alpha_divergence(
            self.soften(student), self.soften(teacher), 0.5
        )


@dataclasses.dataclass(frozen=True)
class ChiSquared(Rescaled, Divergence):
    """Pearson's chi-squared divergence of the teacher from the student.

        losses_i = temperature^2 sum_v (q_iv - p_iv)^2 / p_iv

    Grows exponentially with the student's logits. Infinite where the student rules
    out a class that the teacher does not. Its mirror image is 2 Alpha(alpha=-1).

    Source: cichocki2010families.
    """

    name = "chi_squared"
    row_by_row = True
    coarsens = True

    def rows(self, student, teacher, where):
        del where
        return (self.factor * 2) * _alpha_divergence(
            self.soften(student), self.soften(teacher), 2.0
        )


@dataclasses.dataclass(frozen=True)
class Renyi(Rescaled, Divergence):
    """Rényi divergence of the teacher from the student.

        losses_i = temperature^2 / (alpha - 1) log sum_v q_iv^alpha p_iv^(1 - alpha)

    Nats per example; never decreases with alpha; tends to `KL` as alpha tends to 1.
    Infinite for alpha > 1 where the student rules out a class that the teacher does
    not, and for alpha < 1 where they share no class.

    Args:
        alpha: the order, positive and not 1.

    Source: vanerven2014renyi.
    """

    name = "renyi"
    row_by_row = True
    coarsens = True
    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0 or self.alpha == 1:
            raise ValueError(
                f"alpha must be positive and not 1, which is KL, got {self.alpha}"
            )

    def rows(self, student, teacher, where):
        del where
        log_p, log_q = self.soften(student), self.soften(teacher)
        possible = (log_p > -jnp.inf) | (log_q > -jnp.inf)
        log_p, log_q = without_impossible(log_p, log_q)
        exponents = self.alpha * log_q + (1 - self.alpha) * log_p
        total = jax.nn.logsumexp(jnp.where(possible, exponents, -jnp.inf), axis=-1)
        return (self.factor / (self.alpha - 1)) * total


def _alpha_divergence(
    log_p: Float[Array, "b v"], log_q: Float[Array, "b v"], alpha: float
) -> Float[Array, "b"]:
    """sum_v (q^alpha p^(1 - alpha) - alpha q - (1 - alpha) p) / (alpha (alpha - 1)).

    Every term is non-negative, and the larger of p and q is its factor, so that
    nothing cancels near p = q and nothing overflows but the divergence itself.
    """
    log_p, log_q = without_impossible(log_p, log_q)
    log_ratio = log_q - log_p
    above = log_ratio > 0
    power = jnp.where(above, (alpha - 1) * log_ratio, alpha * log_ratio)
    # What is infinite in truth stays so.
    held = jnp.minimum(power, largest_exponent(log_p))
    power = jnp.where(power == jnp.inf, jnp.inf, held)
    smaller = jnp.where(above, -log_ratio, log_ratio)
    slope = jnp.where(above, 1 - alpha, alpha)
    terms = jnp.expm1(power) - slope * jnp.expm1(smaller)
    total = jnp.sum(jnp.exp(jnp.maximum(log_p, log_q)) * terms, axis=-1)
    return total / (alpha * (alpha - 1))
