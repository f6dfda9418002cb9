"""Divergences between the predictions of a student and of a teacher."""

from kd.divergences.adaptive import AdaptiveKL, BalancedKL
from kd.divergences.comparative import ComparativeKL
from kd.divergences.correlation import DIST, RankCorrelation, ValueCorrelation
from kd.divergences.cross_entropy import ReverseCrossEntropy, SoftCrossEntropy
from kd.divergences.decoupled import ATKD, DKD
from kd.divergences.divergence import Divergence, LabelledDivergence
from kd.divergences.f_divergence import (
    Alpha,
    ChiSquared,
    FDivergence,
    Hellinger,
    Renyi,
    TotalVariation,
)
from kd.divergences.gram import BatchCorrelation, ClassCorrelation
from kd.divergences.kullback_leibler import (
    JS,
    KL,
    Jeffreys,
    ReverseKL,
    SkewedKL,
    SkewedReverseKL,
)
from kd.divergences.logits import LogitMSE, Standardized
from kd.divergences.tokens import PerToken
from kd.divergences.transport import SinKD, SinkhornDivergence

__all__ = [
    "ATKD",
    "DIST",
    "DKD",
    "JS",
    "KL",
    "AdaptiveKL",
    "Alpha",
    "BalancedKL",
    "BatchCorrelation",
    "ChiSquared",
    "ClassCorrelation",
    "ComparativeKL",
    "Divergence",
    "FDivergence",
    "Hellinger",
    "Jeffreys",
    "LabelledDivergence",
    "LogitMSE",
    "PerToken",
    "RankCorrelation",
    "Renyi",
    "ReverseCrossEntropy",
    "ReverseKL",
    "SinKD",
    "SinkhornDivergence",
    "SkewedKL",
    "SkewedReverseKL",
    "SoftCrossEntropy",
    "Standardized",
    "TotalVariation",
    "ValueCorrelation",
]
