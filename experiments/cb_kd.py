"""CB: whether a text commits its author to a clause, by softened predictions.

The loss of `sst2_kd` (hinton2015distilling) on 250 pairs of three classes. Scored by F1
averaged over the classes, and accuracy, on 56 pairs: one pair is 1.8 points.

    make exp NAME=cb_kd DATA_DIR=~/data
"""

from experiments import sst2_kd
from kd.data.superglue import CB
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """As `sst2_kd`, on CB."""
    return sst2_kd.experiment(scale, CB, length=128)
