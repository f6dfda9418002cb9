"""Losses between the hidden states of a student and of a teacher."""

from kd.features.attention import AttentionMSE, AttentionTransfer
from kd.features.compression import EmbeddingCompression
from kd.features.contrast import CRD
from kd.features.dependency import WassersteinDependency
from kd.features.directions import NormalizedMSE
from kd.features.distance_correlation import DistanceCorrelation
from kd.features.feature import FeatureLoss, PositionLoss, VectorLoss
from kd.features.hints import Hints
from kd.features.kernel_alignment import CKA
from kd.features.layers import Misfit, NoSuchLayer
from kd.features.norm_direction import NormAndDirection, class_means
from kd.features.over_layers import OverLayers, skip
from kd.features.probabilistic import PKT
from kd.features.recipes import information_flow, pkd, tinybert
from kd.features.relational import RKDAngle, RKDDistance
from kd.features.selectivity import NST
from kd.features.similarity import CosineDifference, SimilarityPreserving
from kd.features.variational import VID

__all__ = [
    "CKA",
    "CRD",
    "NST",
    "PKT",
    "VID",
    "AttentionMSE",
    "AttentionTransfer",
    "CosineDifference",
    "DistanceCorrelation",
    "EmbeddingCompression",
    "FeatureLoss",
    "Hints",
    "Misfit",
    "NoSuchLayer",
    "NormAndDirection",
    "NormalizedMSE",
    "OverLayers",
    "PositionLoss",
    "RKDAngle",
    "RKDDistance",
    "SimilarityPreserving",
    "VectorLoss",
    "WassersteinDependency",
    "class_means",
    "information_flow",
    "pkd",
    "skip",
    "tinybert",
]
