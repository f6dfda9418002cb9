"""SST-2: distillation by the total variation distance (wen2023fdistill).

make exp NAME=sst2_tvd
"""

import dataclasses

from experiments import sst2_ce
from kd.divergences import TotalVariation
from kd.experiment import Experiment, Scale
from kd.objective import CrossEntropy


def experiment(scale: Scale) -> Experiment:
    """As `sst2_kd`, with total variation for KL."""
    return dataclasses.replace(
        sst2_ce.experiment(scale),
        objective=0.1 * CrossEntropy() + 0.9 * TotalVariation(temperature=2.0),
    )
