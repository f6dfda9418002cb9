"""SST-2: distillation by reverse KL, which seeks the modes of the teacher.

make exp NAME=sst2_rkl
"""

import dataclasses

from experiments import sst2_ce
from kd.divergences import ReverseKL
from kd.experiment import Experiment, Scale
from kd.objective import CrossEntropy


def experiment(scale: Scale) -> Experiment:
    """As `sst2_kd`, with the arguments of the KL exchanged."""
    rkl = ReverseKL(temperature=2.0, temperature_squared=scale != "paper")
    return dataclasses.replace(
        sst2_ce.experiment(scale), objective=0.1 * CrossEntropy() + 0.9 * rkl
    )
