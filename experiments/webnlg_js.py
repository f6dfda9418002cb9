"""WebNLG: JS on texts that teacher and student write (wen2023fdistill).

f-DISTILL's: half of the targets of a batch are drawn from the student, half from the
teacher, and JS compares the two at every token of both. The paper's student is first
distilled by other means: here it starts with what `webnlg_kd` yields.
`procedure.from_student` and the losses of `SampledTargets` give its other variants.

    make exp NAME=webnlg_js DATA_DIR=~/data
"""

import dataclasses

from experiments import webnlg_kd
from kd.data.webnlg import WEBNLG
from kd.data.writing import WritingTask
from kd.divergences import JS, PerToken
from kd.experiment import Experiment, Network, Scale
from kd.procedures.sampled_targets import SampledTargets


def experiment(scale: Scale, task: WritingTask = WEBNLG) -> Experiment:
    """As `webnlg_kd`, on what the two write."""
    base = webnlg_kd.experiment(scale, task)
    return dataclasses.replace(
        base,
        start=Network(recipe=base),
        procedure=SampledTargets(from_student=0.5, from_teacher=0.5),
        objective=1.0 * PerToken(JS()),
    )
