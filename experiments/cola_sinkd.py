"""CoLA: whether a sentence is acceptable, by Sinkhorn distillation.

The loss of `sst2_sinkd` (cui2024sinkhorn). Scored by Matthews correlation. From
scratch, at mini scale, hardly anything is learnt; small scale starts from MiniLM.

    make exp NAME=cola_sinkd DATA_DIR=~/data
"""

from experiments import sst2_sinkd
from kd.data.glue import COLA
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """As `sst2_sinkd`, on CoLA."""
    return sst2_sinkd.experiment(scale, COLA, length=64)
