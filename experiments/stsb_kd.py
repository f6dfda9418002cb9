"""STS-B: how alike two sentences are, a number, learnt from labels and teacher.

Scored by Pearson and Spearman correlation. The student's number comes near the label
and near the teacher's number, in squared error; the weights are those of `sst2_kd`.
cui2024sinkhorn's code takes the same two terms here, the teacher's divided by its
temperature, and a Sinkhorn term that is always 0, since the softmax of a single output
is 1. This project refuses such terms instead.

    make exp NAME=stsb_kd DATA_DIR=~/data
"""

import dataclasses

from experiments import sst2_ce
from kd.data.glue import STSB
from kd.divergences import LogitMSE
from kd.experiment import Experiment, Scale
from kd.objective import SquaredError


def experiment(scale: Scale) -> Experiment:
    """The label's number and the teacher's."""
    return dataclasses.replace(
        sst2_ce.experiment(scale, STSB, length=128),
        objective=0.1 * SquaredError() + 0.9 * LogitMSE(),
    )
