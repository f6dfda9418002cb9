"""SST-2: the divergences of SinKD's paper on a pair with a gap, 20 seeds.

A student of one layer, from scratch, learns from MiniLM, fine-tuned, ten points better.
180 runs: a night on two CPU cores, after 20 minutes for the teacher. `SEEDS=0,1` tries
it.

    make table NAME=sst2_divergences DATA_DIR=~/data WEIGHTS=~/weights/minilm
"""

import dataclasses

from experiments import (
    sst2_ce,
    sst2_jeffreys,
    sst2_js,
    sst2_kd,
    sst2_rkl,
    sst2_sinkd,
    sst2_teacher,
    sst2_tvd,
)
from experiments.tables._claims import OF_DIVERGENCES
from kd.compare.table import Table
from kd.divergences import SinKD, SinkhornDivergence
from kd.experiment import Experiment, Network, Scale
from kd.objective import CrossEntropy


def table(scale: Scale) -> Table:
    """The student at mini scale, the teacher at small; at paper scale both are that."""
    student, teacher = ("paper", "paper") if scale == "paper" else ("mini", "small")
    kd = sst2_kd.experiment(student)
    taught = Network(recipe=sst2_teacher.experiment(teacher))

    def row(experiment: Experiment) -> Experiment:
        return dataclasses.replace(experiment, teachers=(taught,))

    def by(objective) -> Experiment:
        return dataclasses.replace(kd, objective=objective)

    rows = {
        "labels": sst2_ce.experiment(student),
        "KL": kd,
        "reverse KL": sst2_rkl.experiment(student),
        "JS": sst2_js.experiment(student),
        "TVD": sst2_tvd.experiment(student),
        "Jeffreys": sst2_jeffreys.experiment(student),
        "SinKD": by(0.1 * CrossEntropy() + 0.9 * SinKD(temperature=2.0)),
        "KL + SinKD": sst2_sinkd.experiment(student),
        "KL + Sinkhorn divergence": by(
            kd.objective + 0.8 * SinkhornDivergence(temperature=2.0)
        ),
    }
    return Table(
        rows={name: row(experiment) for name, experiment in rows.items()},
        baseline="labels",
        seeds=tuple(range(20)),
        also=("nll", "kl"),
        claims=OF_DIVERGENCES,
    )
