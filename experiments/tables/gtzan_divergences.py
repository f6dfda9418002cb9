"""GTZAN: the divergences of distillation on a table of audio features, 20 seeds.

A pair with a gap, and runs of a second: the table to try things with. Its dev split has
198 rows, so that only differences of some points can be seen.

    make table NAME=gtzan_divergences DATA_DIR=~/data
"""

import dataclasses

from experiments import gtzan_kd
from experiments.tables._claims import OF_DIVERGENCES
from kd.compare.table import Table
from kd.divergences import (
    JS,
    Jeffreys,
    ReverseKL,
    SinKD,
    SinkhornDivergence,
    TotalVariation,
)
from kd.experiment import Scale
from kd.objective import CrossEntropy


def table(scale: Scale) -> Table:
    """Labels alone, and each divergence with the weight and temperature of KL."""
    kd = gtzan_kd.experiment(scale)
    labels = 0.1 * CrossEntropy()
    divergences = {
        "reverse KL": ReverseKL(temperature=4.0),
        "JS": JS(temperature=4.0),
        "Jeffreys": Jeffreys(temperature=4.0),
        "TVD": TotalVariation(temperature=4.0),
        "SinKD": SinKD(temperature=4.0),
    }
    objectives = {
        "labels": 1.0 * CrossEntropy(),
        "KL": kd.objective,
        **{name: labels + 0.9 * loss for name, loss in divergences.items()},
        "KL + SinKD": kd.objective + 0.8 * SinKD(temperature=4.0),
        "KL + Sinkhorn divergence": kd.objective
        + 0.8 * SinkhornDivergence(temperature=4.0),
    }
    return Table(
        rows={
            name: dataclasses.replace(kd, objective=objective)
            for name, objective in objectives.items()
        },
        baseline="labels",
        seeds=tuple(range(20)),
        also=("nll", "ece", "kl"),
        claims=OF_DIVERGENCES,
    )
