"""GTZAN: labels alone against a teacher's soft labels, on a table of audio features.

make table NAME=gtzan_losses DATA_DIR=~/data
"""

import dataclasses

from experiments import gtzan_kd
from kd.compare.table import Claim, Table
from kd.divergences import SinKD
from kd.experiment import Scale
from kd.objective import CrossEntropy


def table(scale: Scale) -> Table:
    """Labels, KL and SinKD; ten seeds."""
    kd = gtzan_kd.experiment(scale)
    return Table(
        rows={
            "labels": dataclasses.replace(kd, objective=1.0 * CrossEntropy()),
            "KL": kd,
            "KL + SinKD": dataclasses.replace(
                kd, objective=kd.objective + 0.8 * SinKD()
            ),
        },
        baseline="labels",
        seeds=tuple(range(10)),
        also=("nll", "kl"),
        claims=(
            Claim("KL", "labels", "hinton2015distilling"),
            Claim("KL + SinKD", "KL", "cui2024sinkhorn, table 4"),
        ),
    )
