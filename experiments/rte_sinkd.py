"""RTE: whether a sentence follows from another, by Sinkhorn distillation.

The loss of `sst2_sinkd` (cui2024sinkhorn) on pairs of sentences. From scratch, at mini
scale, nothing can be learnt of entailment from 2,490 pairs: take it as a test of the
machinery; small scale starts from MiniLM.

    make exp NAME=rte_sinkd DATA_DIR=~/data
"""

from experiments import sst2_sinkd
from kd.data.glue import RTE
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """As `sst2_sinkd`, on RTE."""
    return sst2_sinkd.experiment(scale, RTE, length=128)
