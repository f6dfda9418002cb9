"""SST-2: distillation by the Jensen-Shannon divergence (wen2023fdistill).

make exp NAME=sst2_js
"""

import dataclasses

from experiments import sst2_ce
from kd.divergences import JS
from kd.experiment import Experiment, Scale
from kd.objective import CrossEntropy


def experiment(scale: Scale) -> Experiment:
    """As `sst2_kd`, with JS for KL."""
    js = JS(temperature=2.0, temperature_squared=scale != "paper")
    return dataclasses.replace(
        sst2_ce.experiment(scale), objective=0.1 * CrossEntropy() + 0.9 * js
    )
