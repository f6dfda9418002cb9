"""Divergences between the predictions of a student and of a teacher."""

from kd.divergences.adaptive import AdaptiveKL, BalancedKL
from kd.divergences.annealing import (
    ContinuationKD,
    Staircase,
    annealing,
    continuation,
)
from kd.divergences.comparative import ComparativeKL
from kd.divergences.correlation import DIST, RankCorrelation, ValueCorrelation
from kd.divergences.cross_entropy import (
    HardCrossEntropy,
    ReverseCrossEntropy,
    SoftCrossEntropy,
)
from kd.divergences.cross_tokenizer import CrossTokenizerLoss
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
from kd.divergences.label_words import LabelWords
from kd.divergences.logits import LogitMSE, Standardized
from kd.divergences.multilevel_ot import MultiLevelOT
from kd.divergences.optimal_transport import OptimalTransport
from kd.divergences.sinkd_t0 import SinKDOfT0Script
from kd.divergences.tokens import PerSequence, PerToken
from kd.divergences.transport import SinKD, SinkhornDivergence
from kd.divergences.uld import ULD

__all__ = [
    "ATKD",
    "DIST",
    "DKD",
    "JS",
    "KL",
    "ULD",
    "AdaptiveKL",
    "Alpha",
    "BalancedKL",
    "BatchCorrelation",
    "ChiSquared",
    "ClassCorrelation",
    "ComparativeKL",
    "ContinuationKD",
    "CrossTokenizerLoss",
    "Divergence",
    "FDivergence",
    "HardCrossEntropy",
    "Hellinger",
    "Jeffreys",
    "LabelWords",
    "LabelledDivergence",
    "LogitMSE",
    "MultiLevelOT",
    "OptimalTransport",
    "PerSequence",
    "PerToken",
    "RankCorrelation",
    "Renyi",
    "ReverseCrossEntropy",
    "ReverseKL",
    "SinKD",
    "SinKDOfT0Script",
    "SinkhornDivergence",
    "SkewedKL",
    "SkewedReverseKL",
    "SoftCrossEntropy",
    "Staircase",
    "Standardized",
    "TotalVariation",
    "ValueCorrelation",
    "annealing",
    "continuation",
]
