"""Whether a classifier's confidence means what it says.

The confidence of a prediction is the probability of its likeliest class.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, softmax

from kd.evaluate.accuracy import check


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence against accuracy, by bins of equal width.

    Attributes:
        edges: of the bins, from 0 to 1, [num_bins + 1].
        confidence: mean confidence of the examples of each bin, [num_bins]; NaN where
            there are none.
        accuracy: share of them that is right, [num_bins]; NaN likewise.
        count: their number, [num_bins].
    """

    edges: Float[np.ndarray, "num_edges"]
    confidence: Float[np.ndarray, "num_bins"]
    accuracy: Float[np.ndarray, "num_bins"]
    count: Int[np.ndarray, "num_bins"]

    @property
    def expected_calibration_error(self) -> float:
        """Gap between confidence and accuracy, averaged over the examples."""
        filled = self.count > 0
        gaps = np.abs(self.confidence - self.accuracy)[filled]
        return float(np.average(gaps, weights=self.count[filled]))


def reliability(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"], *, num_bins: int = 15
) -> Reliability:
    """Bins predictions by confidence.

        ECE = sum_k (n_k / n) |accuracy_k - confidence_k|

    A confidence on an edge belongs to the bin below it.

    Raises:
        ValueError: shapes do not fit, there are no examples, or a logit is NaN.

    Source: guo2017calibration, eq. 3, with their 15 bins.
    """
    check(logits, labels)
    probabilities = softmax(np.asarray(logits, np.float64), axis=-1)
    confidence = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == labels
    edges = np.linspace(0, 1, num_bins + 1)
    member = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, None)
    count = np.bincount(member, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            edges=edges,
            confidence=np.bincount(member, confidence, num_bins) / count,
            accuracy=np.bincount(member, right, num_bins) / count,
            count=count,
        )


def negative_log_likelihood(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]
) -> float:
    """-mean_i log softmax(logits_i)[y_i], in nats.

    Raises:
        ValueError: shapes do not fit, there are no examples, or a logit is NaN.
    """
    check(logits, labels)
    log_probabilities = log_softmax(np.asarray(logits, np.float64), axis=-1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def brier_score(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]
) -> float:
    """mean_i sum_v (softmax(logits_i)_v - [v = y_i])^2, between 0 and 2.

    Raises:
        ValueError: shapes do not fit, there are no examples, or a logit is NaN.

    Source: brier1950verification, eq. 2.
    """
    check(logits, labels)
    gaps = softmax(np.asarray(logits, np.float64), axis=-1)
    gaps[np.arange(len(labels)), labels] -= 1
    return float(np.square(gaps).sum(axis=-1).mean())
