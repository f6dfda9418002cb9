"""RTE: whether a sentence follows from another; the fine-tuned teacher.

The recipe of `sst2_teacher`, without a teacher of its own: at small scale MiniLM in 5
epochs.

    make exp NAME=rte_teacher DATA_DIR=~/data
"""

from experiments import sst2_teacher
from kd.data.glue import RTE
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """As `sst2_teacher`, on RTE."""
    return sst2_teacher.experiment(scale, RTE, length=128)
