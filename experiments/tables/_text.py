"""Procedures on sentences: the rows of `procedures_sst2`, `_mrpc` and `_rte`."""

import dataclasses

from experiments import sst2_bdkd, sst2_ce, sst2_kd, sst2_teacher, sst2_tokenmix
from experiments.tables._claims import of_procedures
from experiments.tables._procedures import (
    EQUAL,
    annealed,
    asked_about,
    continued,
    of_length,
)
from kd.compare.table import Table
from kd.data.glue import MRPC, RTE, SST2
from kd.data.sentences import TextTask
from kd.divergences import KL
from kd.experiment import Experiment, Network, Scale
from kd.models.bert import Bert
from kd.networks.change import Layers
from kd.objective import CrossEntropy
from kd.procedures.curriculum import Curriculum
from kd.procedures.online import Online
from kd.views import Beside, TokenMix

_SIZES = {SST2.name: 67_349, MRPC.name: 3_668, RTE.name: 2_490}
"""Training examples."""
_STEPS = {SST2.name: 4000, MRPC.name: 600, RTE.name: 400}
"""Below paper scale; of the smaller tasks about five epochs."""


def table_of(scale: Scale, task: TextTask) -> Table:
    """The table of a task.

    SST-2 is learnt from scratch, at mini scale, from a teacher of small scale; the
    smaller tasks start from layers of a pretrained network, and two networks that begin
    there alike have little to teach each other: they have no rows online. Spans are
    exchanged between single sentences only, of SST-2.
    """
    alone = task is SST2
    length = 64 if alone else 128
    students, teachers = ("mini" if alone else "small", "small")
    if scale == "paper":
        students = teachers = "paper"
    recipe = sst2_teacher.experiment(teachers, task, length=length)
    teacher = Network(recipe=recipe)
    num_steps = _STEPS[task.name]
    if scale == "paper":
        num_steps = 2 * _SIZES[task.name] // 32

    def row(experiment: Experiment) -> Experiment:
        by_it = dataclasses.replace(experiment, teachers=(teacher,), answers="cached")
        return of_length(by_it, num_steps)

    labels = row(sst2_ce.experiment(students, task, length=length))
    kd = row(sst2_kd.experiment(students, task, length=length))
    assistant = Network(recipe=_assistant(kd, students, length))
    ceskd = dataclasses.replace(
        kd, teachers=(assistant, teacher), procedure=Curriculum(pacing=0.5)
    )
    rows = {
        "labels": labels,
        "KL": kd,
        "annealing": annealed(labels, num_steps),
        "continuation": continued(labels, num_steps),
        "TAKD": dataclasses.replace(kd, teachers=(assistant,)),
        "CES-KD": ceskd,
        "CES-KD" + EQUAL: asked_about(ceskd, 1 / 2),
    }
    if alone:
        mixed = row(sst2_tokenmix.experiment(students))
        mutual = 1.0 * CrossEntropy() + 1.0 * KL()
        rows |= {
            "DML": dataclasses.replace(labels, objective=mutual, procedure=Online()),
            "BD-KD": row(sst2_bdkd.experiment(students)),
            "token mix": mixed,
            "token mix" + EQUAL: dataclasses.replace(
                mixed, view=Beside(TokenMix(answers="interpolated"))
            ),
        }
    return Table(
        rows=rows,
        baseline="KL",
        seeds=tuple(range(5)),
        also=("nll", "ece"),
        differ_in=("teachers", "data.unanswered", "num_steps"),
        claims=of_procedures(rows),
    )


def _assistant(kd: Experiment, scale: Scale, length: int) -> Experiment:
    """What trains the network between teacher and student."""
    if scale == "mini":
        return dataclasses.replace(kd, student=Bert.tiny(max_length=length))
    start, chosen = {
        "small": (sst2_teacher.MINILM, (0, 2, 4)),
        "paper": (Network(place="bert-base-uncased"), "first 9"),
    }[scale]
    return dataclasses.replace(
        kd, student=None, start=dataclasses.replace(start, change=Layers(chosen))
    )
