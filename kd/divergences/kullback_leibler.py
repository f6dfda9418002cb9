"""Kullback-Leibler divergences: forward, reverse, of both, and to a mixture."""

import dataclasses

import jax
import jax.numpy as jnp

from kd.divergences.divergence import Divergence
from kd.divergences.softened import Rescaled, log_mixture, relative_entropy


@dataclasses.dataclass(frozen=True)
class KL(Rescaled, Divergence):
    """Forward Kullback-Leibler divergence KL(teacher || student).

        losses_i = temperature^2 sum_v q_iv (log q_iv - log p_iv)

    Nats per example. Infinite where the student rules out a class that the
    teacher does not.

    Source: hinton2015distilling, section 2. `SoftCrossEntropy` has the same
    gradient.
    """

    name = "kl"
    row_by_row = True
    coarsens = True

    def rows(self, student, teacher, where):
        del where
        return self.factor * relative_entropy(
            self.soften(teacher), self.soften(student)
        )


@dataclasses.dataclass(frozen=True)
class ReverseKL(Rescaled, Divergence):
    """Reverse Kullback-Leibler divergence KL(student || teacher).

        losses_i = temperature^2 sum_v p_iv (log p_iv - log q_iv)

    Nats per example. The student is drawn to modes of the teacher. Infinite where
    the teacher rules out a class that the student does not.

    Source: wen2023fdistill, eq. 5 (step-wise form).
    """

    name = "rkl"
    row_by_row = True
    coarsens = True

    def rows(self, student, teacher, where):
        del where
        return self.factor * relative_entropy(
            self.soften(student), self.soften(teacher)
        )


@dataclasses.dataclass(frozen=True)
class Jeffreys(Rescaled, Divergence):
    """Jeffreys divergence, forward plus reverse KL, each with its weight.

        losses_i = temperature^2 (forward KL(q_i || p_i) + reverse KL(p_i || q_i))

    Nats per example. With the default weights it is symmetric.

    Args:
        forward: weight of KL(teacher || student), at least 0.
        reverse: weight of KL(student || teacher), at least 0.

    Source: jeffreys1946invariant. The "symmetric" loss of the DistiLLM code is
    forward 0.1, reverse 0.9, less 0.1 times the teacher's entropy.
    """

    name = "jeffreys"
    row_by_row = True
    coarsens = True
    forward: float = 1.0
    reverse: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.forward, self.reverse) < 0 or self.forward + self.reverse == 0:
            raise ValueError(
                "forward and reverse must be at least 0 and not both 0, got "
                f"{self.forward} and {self.reverse}"
            )

    def rows(self, student, teacher, where):
        del where
        log_p, log_q = self.soften(student), self.soften(teacher)
        losses = jnp.zeros(len(student), student.dtype)
        # A direction without weight may be infinite.
        if self.forward:
            losses += self.forward * relative_entropy(log_q, log_p)
        if self.reverse:
            losses += self.reverse * relative_entropy(log_p, log_q)
        return self.factor * losses


@dataclasses.dataclass(frozen=True)
class SkewedKL(Rescaled, Divergence):
    """Forward KL to a mixture with a little of the teacher, which bounds it.

        m = skew q + (1 - skew) p
        losses_i = temperature^2 KL(q_i || m_i)

    Nats per example, at most -log(skew) at temperature 1. Tends to `KL` as the skew
    tends to 0.

    Args:
        skew: share of the teacher in the mixture, between 0 and 1.

    Source: ko2024distillm. The authors' code leaves out the teacher's
    entropy: the same gradient, but not 0 at p = q. The JS of the f-DISTILL code with
    its beta takes this on the teacher's samples, with skew 1 - beta.
    """

    name = "skl"
    row_by_row = True
    coarsens = True
    skew: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_share("skew", self.skew)

    def rows(self, student, teacher, where):
        del where
        log_p, log_q = self.soften(student), self.soften(teacher)
        return self.factor * relative_entropy(
            log_q, log_mixture(log_q, log_p, self.skew)
        )


@dataclasses.dataclass(frozen=True)
class SkewedReverseKL(Rescaled, Divergence):
    """Reverse KL to a mixture with a little of the student, which bounds it.

        m = (1 - skew) q + skew p
        losses_i = temperature^2 KL(p_i || m_i)

    Nats per example, at most -log(skew) at temperature 1. Tends to `ReverseKL` as
    the skew tends to 0.

    Args:
        skew: share of the student in the mixture, between 0 and 1.
        constant_mixture: no gradient through the student in the mixture, as in the
            DistiLLM-2 code; that of DistiLLM has it.

    Source: ko2024distillm; ko2025distillm2. The JS of the f-DISTILL
    code with its beta takes this on the student's samples, with skew beta.
    """

    name = "srkl"
    row_by_row = True
    coarsens = True
    skew: float = 0.1
    constant_mixture: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_share("skew", self.skew)

    def rows(self, student, teacher, where):
        del where
        log_p, log_q = self.soften(student), self.soften(teacher)
        mixed = jax.lax.stop_gradient(log_p) if self.constant_mixture else log_p
        return self.factor * relative_entropy(
            log_p, log_mixture(mixed, log_q, self.skew)
        )


@dataclasses.dataclass(frozen=True)
class JS(Rescaled, Divergence):
    """Jensen-Shannon divergence, skewed by beta.

        m = beta q + (1 - beta) p
        losses_i = temperature^2 (beta KL(q_i || m_i) + (1 - beta) KL(p_i || m_i))

    Nats per example, at most log 2 at beta = 1/2 and temperature 1. Tends to 0,
    not to a KL, as beta tends to 0 or 1.

    Args:
        beta: share of the teacher in the mixture and weight of its KL, between 0
            and 1. Others count the student's share: `lam` of the DistiLLM code and
            `beta` of f-DISTILL are 1 - beta here; the "gkd" of the DistiLLM-2 code
            with alpha 0.9 is beta 0.9 here, that of DistiLLM beta 0.1.

    Source: agarwal2024gkd, eq. 1, whose beta this is. TRL puts `KL` and `ReverseKL`
    in the place of beta 0 and 1 and has no temperature^2. The JS of the SinKD code
    feeds probabilities where logarithms belong and goes negative; it is not
    reproduced here.
    """

    name = "js"
    row_by_row = True
    coarsens = True
    beta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_share("beta", self.beta)

    def rows(self, student, teacher, where):
        del where
        log_p, log_q = self.soften(student), self.soften(teacher)
        log_m = log_mixture(log_q, log_p, self.beta)
        return self.factor * (
            self.beta * relative_entropy(log_q, log_m)
            + (1 - self.beta) * relative_entropy(log_p, log_m)
        )


def _check_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {share}")
