"""CoLA: whether a sentence is grammatical; the fine-tuned teacher.

The recipe of `sst2_teacher`, without a teacher of its own: at small scale MiniLM in 5
epochs.

    make exp NAME=cola_teacher DATA_DIR=~/data
"""

from experiments import sst2_teacher
from kd.data.glue import COLA
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """As `sst2_teacher`, on CoLA."""
    return sst2_teacher.experiment(scale, COLA)
