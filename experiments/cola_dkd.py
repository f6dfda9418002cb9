"""CoLA: decoupled distillation (zhao2022dkd) where two classes leave half of it.

DKD weighs two parts of KL: how sure the teacher is of the labelled class, and how it
ranks the others. With two classes there is one other, so the second part is 0 and its
weight has no effect: DKD is then KL.

CoLA is scored by Matthews correlation, `mcc` in summary.json and on the page: 69 % of
dev are acceptable, so accuracy says little. Paper scale has the networks and recipes of
`sst2_ce`. At mini scale, without pretrained weights, hardly anything is learnt: take it
as a test of the machinery. Measured there, seed 0, on two shared CPU cores: MCC 0.068
and accuracy 64.33 % (teacher 0.068 and 61.84 %), 115 s in all.

    make exp NAME=cola_dkd DATA_DIR=~/data/glue
"""

import dataclasses

from experiments import sst2_ce, sst2_teacher
from kd.data.glue import COLA
from kd.divergences import DKD
from kd.experiment import Experiment, Network, Scale
from kd.objective import CrossEntropy


def experiment(scale: Scale) -> Experiment:
    """Labels and DKD with the weights of its authors."""
    recipe = sst2_teacher.experiment(scale, COLA)
    student = sst2_ce.experiment(scale)
    if scale == "mini":
        recipe = dataclasses.replace(
            recipe, num_epochs=0, num_steps=1500, evaluate_every=250
        )
        student = dataclasses.replace(
            student, num_epochs=0, num_steps=1500, evaluate_every=250
        )
    return dataclasses.replace(
        student,
        data=recipe.data,
        teachers=(Network(recipe=recipe),),
        objective=1.0 * CrossEntropy()
        + 1.0 * DKD(temperature=4.0, alpha=1.0, beta=8.0),
    )
