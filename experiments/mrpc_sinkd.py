"""MRPC: whether two sentences say the same, by Sinkhorn distillation.

The loss of `sst2_sinkd` (cui2024sinkhorn) on pairs of sentences. Scored by F1 of the
equivalent pairs, which a network that calls all pairs equivalent gets 81.2 % of, and
accuracy.

    make exp NAME=mrpc_sinkd DATA_DIR=~/data
"""

from experiments import sst2_sinkd
from kd.data.glue import MRPC
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """As `sst2_sinkd`, on MRPC."""
    return sst2_sinkd.experiment(scale, MRPC, length=128)
