"""Fashion-MNIST: features, relations and logits taken apart, 5 seeds.

Hints, attention, relations, contrast and others beside the labels, each with the weight
that its authors, or the codes that compare them, give on CIFAR-100; nothing is tuned.
Students are those of `fashion_mnist_divergences`. The teacher runs in every step where
a loss reads its features.

    make table NAME=fashion_mnist_features DATA_DIR=~/data
"""

import dataclasses

from experiments import fashion_mnist_ce, fashion_mnist_kd
from experiments.tables.fashion_mnist_divergences import shorter
from kd.compare.table import Claim, Table
from kd.divergences import DIST, DKD
from kd.experiment import Scale
from kd.features import (
    CRD,
    PKT,
    AttentionTransfer,
    Hints,
    NormAndDirection,
    RKDAngle,
    RKDDistance,
    SimilarityPreserving,
)
from kd.objective import CrossEntropy


def table(scale: Scale) -> Table:
    """Labels alone, KL, and eight others."""
    labels = fashion_mnist_ce.experiment(scale)
    kd = fashion_mnist_kd.experiment(scale)
    stage = {"student_layer": -2, "teacher_layer": -2}
    losses = {
        "hints": 100 * Hints(**stage),
        "AT": 1000 * AttentionTransfer(**stage),
        "SP": 3000 * SimilarityPreserving(**stage),
        # Of the mean over pairs, as published, 1/m of ours for m examples.
        "PKT": 30_000 / labels.batch_size * PKT(),
        "RKD": 25 * RKDDistance() + 50 * RKDAngle(),
        "CRD": 0.8 * CRD(),
        "DKD": 1.0 * DKD(temperature=4.0),
        "DIST": 1.0 * DIST(temperature=4.0),
    }
    rows = {
        "labels": labels,
        "KL": kd,
        **{
            name: dataclasses.replace(kd, objective=1.0 * CrossEntropy() + loss)
            for name, loss in losses.items()
        },
        "KL + ND": dataclasses.replace(
            kd, objective=kd.objective + 1.0 * NormAndDirection(class_means="batch")
        ),
    }
    claims = [
        Claim("KL", "labels", "hinton2015distilling"),
        Claim("hints", "labels", "romero2015fitnets"),
        Claim("AT", "labels", "zagoruyko2017attention"),
        Claim("SP", "labels", "tung2019similarity"),
        Claim("PKT", "labels", "passalis2018pkt"),
        Claim("RKD", "labels", "park2019rkd"),
        Claim("CRD", "KL", "tian2020crd"),
        Claim("DKD", "KL", "zhao2022dkd"),
        Claim("DIST", "KL", "huang2022dist"),
        Claim("KL + ND", "KL", "wang2023norm"),
    ]
    return Table(
        rows={name: shorter(row, scale) for name, row in rows.items()},
        baseline="labels",
        seeds=tuple(range(5)),
        also=("nll", "ece", "kl"),
        claims=tuple(claims),
    )
