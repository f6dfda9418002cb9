"""Fashion-MNIST: Wasserstein dependency as a loss, against CRD, 5 seeds.

Both have a critic tell the student's and the teacher's features of one image from those
of two; ozair2019wasserstein bounds its slope, there of two views of the same data. CRD
has the weight of `fashion_mnist_features`, whose runs these are, the other one 1, in
nats as the labels; nothing is tuned. No paper claims either above the other.

    make table NAME=fashion_mnist_dependency DATA_DIR=~/data
"""

import dataclasses

from experiments import fashion_mnist_ce
from experiments.tables.fashion_mnist_divergences import shorter
from kd.compare.table import Table
from kd.experiment import Scale
from kd.features import CRD, WassersteinDependency
from kd.objective import CrossEntropy


def table(scale: Scale) -> Table:
    """Labels alone, CRD, and the other."""
    labels = fashion_mnist_ce.experiment(scale)
    losses = {
        "CRD": 0.8 * CRD(),
        "Wasserstein dependency": 1.0 * WassersteinDependency(),
    }
    rows = {"labels": labels} | {
        name: dataclasses.replace(labels, objective=1.0 * CrossEntropy() + loss)
        for name, loss in losses.items()
    }
    return Table(
        rows={name: shorter(row, scale) for name, row in rows.items()},
        baseline="CRD",
        seeds=tuple(range(5)),
        also=("nll", "ece", "kl"),
    )
