"""Fashion-MNIST: who teaches, when, on what; plain KD as the baseline, 5 seeds.

Every row has the student, the teacher and as many steps as `fashion_mnist_kd`, and the
settings of its own experiment; nothing is tuned. How often a row asks its teachers is a
column. Those that ask more often than plain KD stand there once more with as many
questions, "equal queries": mixtures are then answered by interpolation, and of three
experts each answers on a third of the examples. R2KD has no such row: it asks two
teachers, and by interpolation, "R2KD, interpolated", each of them once about every
image. Comparative KD asks about 4 % of the images, and has plain KD with as many beside
it. Online no frozen teacher is asked: compare with the labels alone.

Not counted is what it took to train assistants, auxiliary networks and experts, which
all seeds share. They share phase one of annealing, too, and what it asked and its steps
do count. At mini scale 2,000 steps a run, a minute or two on two CPU cores, so some
hours in all.

    make table NAME=procedures_images DATA_DIR=~/data
"""

import dataclasses

from experiments import (
    fashion_mnist_bdkd,
    fashion_mnist_ce,
    fashion_mnist_ceskd,
    fashion_mnist_ckd,
    fashion_mnist_cutmixpick,
    fashion_mnist_distpp,
    fashion_mnist_dkdpp,
    fashion_mnist_dml,
    fashion_mnist_east,
    fashion_mnist_kd,
    fashion_mnist_kdcl,
    fashion_mnist_kdpp,
    fashion_mnist_mixup,
    fashion_mnist_r2kd,
    fashion_mnist_takd,
)
from experiments.tables._claims import of_procedures
from experiments.tables._procedures import EQUAL, annealed, asked_about, continued
from kd.compare.table import Table
from kd.experiment import Experiment, Network, Scale
from kd.features import PKT, information_flow
from kd.objective import CrossEntropy
from kd.views import Beside, CutMix, Mixup, Pick

_EPOCH = 422
"""Batches of 128 in the images that are not of dev."""


def table(scale: Scale) -> Table:
    """Labels alone, plain KD, and the procedures."""
    digits = {"EAsT, of digits": fashion_mnist_east.experiment(scale)}
    return table_of(rows(scale) | digits)


def table_of(rows: dict[str, Experiment]) -> Table:
    """The table of these rows."""
    return Table(
        rows=rows,
        baseline="KL",
        seeds=tuple(range(5)),
        also=("nll", "ece"),
        differ_in=(
            "teachers", "teacher_weights", "data.unanswered", "num_steps", "num_epochs",
        ),
        claims=of_procedures(rows),
    )  # fmt: skip


def rows(scale: Scale) -> dict[str, Experiment]:
    """All that learn from teachers of their own task, and the labels alone."""
    labels = fashion_mnist_ce.experiment(scale)
    kd = fashion_mnist_kd.experiment(scale)
    mixup = fashion_mnist_mixup.experiment(scale)
    cutmixpick = fashion_mnist_cutmixpick.experiment(scale)
    ceskd = fashion_mnist_ceskd.experiment(scale)
    r2kd = fashion_mnist_r2kd.experiment(scale)
    east = fashion_mnist_east.experiment(scale)
    num_steps = kd.num_steps or kd.num_epochs * _EPOCH

    def interpolated(experiment, view):
        return dataclasses.replace(experiment, view=Beside(view))

    cutmix = CutMix(answers="interpolated")
    return {
        "labels": labels,
        "KL": kd,
        "annealing": annealed(labels, num_steps),
        "continuation": continued(labels, num_steps),
        "DML": fashion_mnist_dml.experiment(scale),
        "KDCL": fashion_mnist_kdcl.experiment(scale),
        "BD-KD": fashion_mnist_bdkd.experiment(scale),
        "TAKD": fashion_mnist_takd.experiment(scale),
        "CES-KD": ceskd,
        "CES-KD" + EQUAL: asked_about(ceskd, 1 / 3),
        "mixup": mixup,
        "mixup" + EQUAL: interpolated(mixup, Mixup(answers="interpolated")),
        "CutMixPick": cutmixpick,
        "CutMixPick" + EQUAL: interpolated(cutmixpick, Pick(cutmix)),
        "R2KD": r2kd,
        "R2KD, interpolated": interpolated(r2kd, cutmix),
        "CKD": fashion_mnist_ckd.experiment(scale),
        "KL, 4 % answered": asked_about(kd, 0.04),
        "KD++": fashion_mnist_kdpp.experiment(scale),
        "DKD++": fashion_mnist_dkdpp.experiment(scale),
        "DIST++": fashion_mnist_distpp.experiment(scale),
        "EAsT": dataclasses.replace(east, teachers=kd.teachers),
        "information flow": _information_flow(labels, scale, num_steps),
    }


def _information_flow(labels: Experiment, scale: Scale, num_steps: int) -> Experiment:
    """As `fashion_mnist_information_flow`, with the student of the other rows.

    The auxiliary network is of the size of the assistant of TAKD.
    """
    assistant = fashion_mnist_takd.assistant(scale).student
    supervised = dataclasses.replace(labels, student=assistant)
    auxiliary = dataclasses.replace(
        supervised,
        start=Network(recipe=supervised),
        objective=1.0 * CrossEntropy() + PKT(kernel="both", divergence="jeffreys"),
    )
    flow = information_flow((1, 2, 3), (1, 2, 3), steps_per_epoch=num_steps // 50)
    return dataclasses.replace(
        labels,
        teachers=(Network(recipe=auxiliary),),
        objective=1.0 * CrossEntropy() + flow,
    )
