"""SST-2: knowledge distillation with softened predictions (hinton2015distilling).

Weights and temperature are those of cui2024sinkhorn. Its code multiplies the KL by no
temperature^2, which paper scale follows; smaller scales keep the factor.

    make exp NAME=sst2_kd
"""

import dataclasses

from experiments import sst2_ce
from kd.data.glue import SST2
from kd.data.sentences import TextTask
from kd.divergences import KL
from kd.experiment import Experiment, Scale
from kd.objective import CrossEntropy


def experiment(scale: Scale, task: TextTask = SST2, *, length: int = 64) -> Experiment:
    """Labels and the teacher's softened predictions."""
    kl = KL(temperature=2.0, temperature_squared=scale != "paper")
    return dataclasses.replace(
        sst2_ce.experiment(scale, task, length=length),
        objective=0.1 * CrossEntropy() + 0.9 * kl,
    )
