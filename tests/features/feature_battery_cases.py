"""What the battery of losses of hidden states tests: each, its definition, its traits.

A new loss enters by one line in `LOSSES`.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import reference_features as reference

from kd.features import (
    CKA,
    CRD,
    NST,
    PKT,
    VID,
    AttentionMSE,
    AttentionTransfer,
    CosineDifference,
    DistanceCorrelation,
    EmbeddingCompression,
    Hints,
    NormalizedMSE,
    NormAndDirection,
    RKDAngle,
    RKDDistance,
    SimilarityPreserving,
    WassersteinDependency,
)

ROWS, CLASSES = 8, 3
MEANS = np.random.default_rng(7).normal(size=(CLASSES, 6))
"""Of the teacher's features in every class, for what takes those over a data set."""


class Case(NamedTuple):
    loss: Any
    definition: Callable
    """Of (parameters, student, teacher, labels)."""
    widths: tuple[int, int] = (4, 6)
    coupled: bool = False
    """Whether the value of a row depends on other rows."""
    at_equal: Any = None
    """Parameters at which equal features give 0; None where there are none such."""
    signed: bool = False
    """Whether it may be negative."""
    scale_free: bool = False
    """Whether neither side's scale matters, where the widths are equal."""
    learned: Callable | None = None
    """What the parameters learn from, where that is not the definition."""


IDENTITY = {"kernel": np.eye(4, dtype=np.float32), "bias": np.zeros(4, np.float32)}

LOSSES = [
    Case(Hints(), reference.hints, at_equal=IDENTITY),
    Case(NormalizedMSE(), reference.normalized_mse),  # projects
    Case(
        NormalizedMSE(),
        reference.normalized_mse,
        widths=(4, 4),
        at_equal=(),
        scale_free=True,
    ),
    Case(
        AttentionTransfer(), reference.attention_transfer, at_equal=(), scale_free=True
    ),
    Case(AttentionMSE(), reference.attention_mse, widths=(2, 2), at_equal=()),
    Case(
        AttentionMSE(heads="mean"),
        reference.attention_mse_of_means,
        widths=(1, 2),
        at_equal=(),
    ),
    Case(NST(), reference.nst, at_equal=(), scale_free=True),
    Case(VID(), reference.vid, signed=True),
    Case(
        SimilarityPreserving(),
        reference.similarity_preserving,
        coupled=True,
        at_equal=(),
        scale_free=True,
    ),
    Case(
        CosineDifference(),
        reference.cosine_difference,
        coupled=True,
        at_equal=(),
        scale_free=True,
    ),
    Case(
        RKDDistance(),
        reference.rkd_distance,
        coupled=True,
        at_equal=(),
        scale_free=True,
    ),
    Case(RKDAngle(), reference.rkd_angle, coupled=True, at_equal=(), scale_free=True),
    Case(
        PKT(), reference.pkt("cosine", "kl"), coupled=True, at_equal=(), scale_free=True
    ),
    Case(
        PKT(kernel="both", divergence="jeffreys"),
        reference.pkt("both", "jeffreys"),
        coupled=True,
        at_equal=(),
    ),
    Case(CRD(width=3), reference.crd, coupled=True),
    Case(CKA(), reference.cka, coupled=True, at_equal=(), scale_free=True),
    Case(
        DistanceCorrelation(),
        reference.distance_correlation,
        coupled=True,
        at_equal=(),
        scale_free=True,
    ),
    Case(
        EmbeddingCompression(width=3),
        reference.compression,
        coupled=True,
        learned=reference.compressed_labels,
    ),
    Case(
        NormAndDirection(class_means="batch"),
        reference.norm_and_direction(),
        coupled=True,
        scale_free=True,
    ),  # projects
    Case(NormAndDirection(), reference.norm_and_direction(MEANS)),
    Case(
        WassersteinDependency(width=5),
        reference.wasserstein_dependency,
        coupled=True,
        signed=True,
    ),
]


def named(case):
    loss = re.sub(r"(student_layer|teacher_layer|read)=[^,)]*(, )?", "", str(case.loss))
    return f"{loss}-{case.widths[0]}"
