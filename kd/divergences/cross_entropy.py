"""Cross-entropies between the two predictions: KL without the entropy it subtracts."""

import dataclasses

import jax.numpy as jnp

from kd.divergences.divergence import Divergence
from kd.divergences.softened import Rescaled, cross_entropy, log_softmax


@dataclasses.dataclass(frozen=True)
class SoftCrossEntropy(Rescaled, Divergence):
    """Cross-entropy with the teacher's distribution, KL plus the teacher's entropy.

        losses_i = -temperature^2 sum_v q_iv log p_iv

    Nats per example. Not zero at p = q; the gradient is that of `KL`.

    Source: hinton2015distilling, section 2; with `temperature_squared=False` the
    `kd` loss of the SinKD code. The forward KL of the DistiLLM code is this.
    """

    name = "soft_ce"
    row_by_row = True
    coarsens = True

    def rows(self, student, teacher, where):
        del where
        return self.factor * cross_entropy(self.soften(teacher), self.soften(student))


@dataclasses.dataclass(frozen=True)
class ReverseCrossEntropy(Rescaled, Divergence):
    """Energy of the student's predictions, reverse KL plus the student's entropy.

        losses_i = -temperature^2 sum_v p_iv log q_iv

    Nats per example. Least where the student is sure of the teacher's first choice:
    nothing keeps it from collapsing onto that. Infinite where the teacher rules out
    a class that the student does not.

    Source: tu2020engine, as compared with in wen2023fdistill.
    """

    name = "reverse_ce"
    row_by_row = True
    coarsens = True

    def rows(self, student, teacher, where):
        del where
        return self.factor * cross_entropy(self.soften(student), self.soften(teacher))


@dataclasses.dataclass(frozen=True)
class HardCrossEntropy(Divergence):
    """Cross-entropy with the class that the teacher thinks most likely.

        losses_i = -log softmax(s_i)[argmax_v t_iv]

    Nats per example; of equal logits the first counts. Not zero at p = q. The hard
    distillation of touvron2021deit, section 3, there of the distillation token.
    """

    name = "hard_ce"
    row_by_row = True

    def rows(self, student, teacher, where):
        del where
        chosen = jnp.argmax(teacher, axis=-1, keepdims=True)
        log_p = log_softmax(student, 1.0)
        return -jnp.take_along_axis(log_p, chosen, axis=-1)[..., 0]
