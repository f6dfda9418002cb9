"""SST-2: relations among examples, their distances and angles (park2019rkd).

The student's mean hidden states of the last layer are to lie to each other as the
teacher's do, whatever the widths. Weights 25 and 50 are the authors', on top of
labels and softened predictions. What the losses see of the teacher is computed
once.

    make exp NAME=sst2_rkd
"""

import dataclasses

from experiments import sst2_kd
from kd.experiment import Experiment, Scale
from kd.features import RKDAngle, RKDDistance


def experiment(scale: Scale) -> Experiment:
    """As `sst2_kd`, and the relations of hidden states."""
    base = sst2_kd.experiment(scale)
    relations = 25 * RKDDistance() + 50 * RKDAngle()
    return dataclasses.replace(base, objective=base.objective + relations)
