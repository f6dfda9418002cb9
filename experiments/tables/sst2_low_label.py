"""SST-2: few labels, and a teacher's answers on everything, 5 seeds.

Labels of 1, 5 and 20 % of the training set, alone and with the predictions of a
fine-tuned MiniLM on all of it, the labelled examples and the others. The baseline has
all labels and no teacher: how much of what is missing do a teacher's answers replace?
Every row takes as many steps; labels alone see their few examples more often.

    make table NAME=sst2_low_label DATA_DIR=~/data WEIGHTS=~/weights/minilm
"""

import dataclasses

from experiments import sst2_ce, sst2_kd, sst2_sinkd, sst2_teacher
from kd.compare.table import Claim, Table
from kd.experiment import Experiment, Network, Scale

_SHARES = {"1 %": 0.01, "5 %": 0.05, "20 %": 0.2}


def table(scale: Scale) -> Table:
    """The student at mini scale, the teacher at small; at paper scale both are that."""
    student, teacher = ("paper", "paper") if scale == "paper" else ("mini", "small")
    taught = Network(recipe=sst2_teacher.experiment(teacher))
    methods = {
        "labels": sst2_ce.experiment(student),
        "KL": sst2_kd.experiment(student),
        "KL + SinKD": sst2_sinkd.experiment(student),
    }

    def row(experiment: Experiment, share: float) -> Experiment:
        data = dataclasses.replace(experiment.data, unlabelled=1 - share)
        return dataclasses.replace(experiment, teachers=(taught,), data=data)

    rows = {"all labels": row(methods["labels"], 1.0)}
    for percent, share in _SHARES.items():
        for name, experiment in methods.items():
            rows[f"{name}, {percent}"] = row(experiment, share)
    claims = [
        Claim(f"{better}, {percent}", f"{than}, {percent}", source)
        for percent in _SHARES
        for better, than, source in (
            ("KL", "labels", "hinton2015distilling"),
            ("KL + SinKD", "KL", "cui2024sinkhorn"),
        )
    ]
    return Table(
        rows=rows,
        baseline="all labels",
        seeds=tuple(range(5)),
        also=("nll", "kl"),
        differ_in=("data.unlabelled",),
        claims=tuple(claims),
    )
