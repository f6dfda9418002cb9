"""Cross-entropies between the two predictions: KL without the entropy it subtracts."""

import dataclasses

from kd.divergences.divergence import Divergence
from kd.divergences.softened import Rescaled, cross_entropy


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
