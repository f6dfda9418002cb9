"""WebNLG: sequence-level distillation, learning the texts that the teacher writes.

kim2016sequence, as a baseline of wen2023fdistill. The teacher searches with beams at
paper scale, and takes its likeliest tokens below it; anew in every step, where these
write once, before training.

    make exp NAME=webnlg_seqkd DATA_DIR=~/data
"""

import dataclasses

from experiments import webnlg_kd
from kd.divergences import PerToken
from kd.experiment import Experiment, Scale
from kd.models.beams import Beams
from kd.models.generate import Greedy
from kd.objective import CrossEntropy
from kd.procedures.sampled_targets import SampledTargets


def experiment(scale: Scale) -> Experiment:
    """As `webnlg_kd`, on what its teacher writes."""
    how = Beams(num_beams=5) if scale == "paper" else Greedy()
    return dataclasses.replace(
        webnlg_kd.experiment(scale),
        procedure=SampledTargets(from_student=0.0, from_teacher=1.0, how=how),
        objective=1.0 * PerToken(CrossEntropy()),
    )
