"""Weighted sums of losses that read like the formula of a paper.

    0.1 * CrossEntropy() + 0.9 * KL(temperature=2.0) + 0.8 * SinKD()

loss.py      what a loss is
mix.py       weighted sums of losses
targets.py   losses on what the data say
of_head.py   a loss of one of several classifiers
partition.py losses on predictions of which some classes are taken for one
chunked.py   sums of losses over logits that are never there all at once

No divergence is known here; they import this package, not the other way round.
"""

from kd.objective.chunked import OverRows
from kd.objective.loss import Loss, Wrapper
from kd.objective.mix import (
    Mix,
    Term,
    embeddings_of,
    is_told,
    live_readers,
    masked_mean,
    values_within,
)
from kd.objective.of_head import OfHead
from kd.objective.targets import (
    CrossEntropy,
    SquaredError,
    TargetLoss,
    nan_without_class,
)

__all__ = [
    "CrossEntropy",
    "Loss",
    "Mix",
    "OfHead",
    "OverRows",
    "SquaredError",
    "TargetLoss",
    "Term",
    "Wrapper",
    "embeddings_of",
    "is_told",
    "live_readers",
    "masked_mean",
    "nan_without_class",
    "values_within",
]
