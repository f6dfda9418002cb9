"""Divergences between the predictions of a student and of a teacher."""

from kd.divergences.divergence import Divergence
from kd.divergences.pointwise import (
    JS,
    KL,
    ReverseKL,
    SoftCrossEntropy,
    TotalVariation,
)
from kd.divergences.transport import SinKD, SinkhornDivergence

__all__ = [
    "JS",
    "KL",
    "Divergence",
    "ReverseKL",
    "SinKD",
    "SinkhornDivergence",
    "SoftCrossEntropy",
    "TotalVariation",
]
