"""Fashion-MNIST: the divergences of distillation on ten classes, 10 seeds.

Students of half the teacher's channels and 1,000 steps, half of the teacher's; scored
on the 10,000 test images, so that differences of some tenths of a point can be seen.

    make table NAME=fashion_mnist_divergences DATA_DIR=~/data
"""

import dataclasses

from experiments import fashion_mnist_ce, fashion_mnist_kd
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
from kd.experiment import Experiment, Scale
from kd.objective import CrossEntropy, Mix


def table(scale: Scale) -> Table:
    """Labels alone, and each divergence with the weight and temperature of KL."""
    kd = fashion_mnist_kd.experiment(scale)
    labels = 1.0 * CrossEntropy()
    objectives = {
        "KL": kd.objective,
        "reverse KL": labels + 1.0 * ReverseKL(temperature=4.0),
        "JS": labels + 1.0 * JS(temperature=4.0),
        "Jeffreys": labels + 1.0 * Jeffreys(temperature=4.0),
        "TVD": labels + 1.0 * TotalVariation(temperature=4.0),
        "SinKD": labels + 0.8 * SinKD(temperature=4.0),
        "KL + SinKD": kd.objective + 0.8 * SinKD(temperature=4.0),
        "KL + Sinkhorn divergence": kd.objective
        + 0.8 * SinkhornDivergence(temperature=4.0),
    }
    rows = {"labels": fashion_mnist_ce.experiment(scale)} | {
        name: _by(kd, objective) for name, objective in objectives.items()
    }
    return Table(
        rows={name: shorter(row, scale) for name, row in rows.items()},
        baseline="labels",
        seeds=tuple(range(10)),
        also=("nll", "ece", "kl"),
        claims=OF_DIVERGENCES,
    )


def shorter(row: Experiment, scale: Scale) -> Experiment:
    """Below paper scale a student learns for half as long as its teacher."""
    if scale == "paper":
        return row
    return dataclasses.replace(row, num_steps=1000)


def _by(experiment: Experiment, objective: Mix) -> Experiment:
    return dataclasses.replace(experiment, objective=objective)
