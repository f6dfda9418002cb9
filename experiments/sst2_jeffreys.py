"""SST-2: distillation by the Jeffreys divergence, forward and reverse KL together.

make exp NAME=sst2_jeffreys
"""

import dataclasses

from experiments import sst2_ce
from kd.divergences import Jeffreys
from kd.experiment import Experiment, Scale
from kd.objective import CrossEntropy


def experiment(scale: Scale) -> Experiment:
    """As `sst2_kd`, with the mean of KL in both directions for KL."""
    jeffreys = Jeffreys(
        temperature=2.0, temperature_squared=scale == "mini", forward=0.5, reverse=0.5
    )
    return dataclasses.replace(
        sst2_ce.experiment(scale), objective=0.1 * CrossEntropy() + 0.9 * jeffreys
    )
