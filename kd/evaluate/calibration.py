"""Whether the probabilities of a classifier mean what they say.

The confidence of a prediction is the probability of its likeliest class. A model is
calibrated if it is right on 80 % of the predictions made with confidence 0.8.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, softmax

from kd.evaluate.predictions import checked_labels, checked_logits


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence against accuracy, in bins of equal width.

    Bin `k` holds the predictions with edges[k] < confidence <= edges[k + 1].

    Attributes:
        edges: of the bins, from 0 to 1, [num_bins + 1].
        confidence: mean confidence in each bin, [num_bins]; NaN in empty bins.
        accuracy: share of right predictions, [num_bins]; NaN in empty bins.
        count: number of predictions, [num_bins].
    """

    edges: Float[np.ndarray, "num_edges"]
    confidence: Float[np.ndarray, "num_bins"]
    accuracy: Float[np.ndarray, "num_bins"]
    count: Int[np.ndarray, "num_bins"]

    @property
    def expected_calibration_error(self) -> float:
        """Gap between confidence and accuracy, averaged over the predictions.

            ECE = sum_k (n_k / n) |accuracy_k - confidence_k|

        Between 0 and 1. It grows with the number of bins and shrinks with that of
        predictions: compare it only at equal numbers of both.

        Source: guo2017calibration, eq. 3.
        """
        filled = self.count > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float(np.average(gaps, weights=self.count[filled]))


def reliability(
    logits: Float[np.ndarray, "n v"],
    labels: Int[np.ndarray, "n"],
    *,
    num_bins: int = 15,
) -> Reliability:
    """Sorts predictions into bins by their confidence.

    Args:
        logits: [n, v], any float dtype; -inf means probability 0.
        labels: [n], integers in [0, v).
        num_bins: of equal width between 0 and 1; 15 as in the experiments of
            guo2017calibration.

    Returns:
        The bins, for a reliability diagram, and with them the expected calibration
        error.

    Raises:
        ValueError: shapes do not fit, no examples, NaN, a label out of range, or
            num_bins < 1.

    Source: guo2017calibration, sec. 2.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    logits = checked_logits(logits)
    labels = checked_labels(labels, logits)
    confidence = softmax(logits, axis=-1).max(axis=-1)
    right = logits.argmax(axis=-1) == labels
    edges = np.arange(num_bins + 1) / num_bins
    bins = np.searchsorted(edges[1:-1], confidence, side="left")
    count = np.bincount(bins, minlength=num_bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in empty bins
        return Reliability(
            edges=edges,
            confidence=np.bincount(bins, confidence, num_bins) / count,
            accuracy=np.bincount(bins, right, num_bins) / count,
            count=count,
        )


def expected_calibration_error(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]
) -> float:
    """That of `reliability` with 15 bins."""
    return reliability(logits, labels).expected_calibration_error


def negative_log_likelihood(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]
) -> float:
    """How unlikely the labels are to the model.

        NLL = -mean_i log p_i[y_i],    p = softmax(logits)

    Args:
        logits: [n, v], any float dtype; -inf means probability 0.
        labels: [n], integers in [0, v).

    Returns:
        Nats per example; inf where a label has probability 0.

    Raises:
        ValueError: shapes do not fit, no examples, NaN, or a label out of range.
    """
    logits = checked_logits(logits)
    labels = checked_labels(labels, logits)
    log_probs = log_softmax(logits, axis=-1)
    return float(-log_probs[np.arange(len(labels)), labels].mean())


def brier_score(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]
) -> float:
    """Squared distance between predicted probabilities and the labels.

        Brier = mean_i sum_v (p_iv - [v = y_i])^2,    p = softmax(logits)

    The sum runs over all classes, as in the source. With two classes that is twice
    the one-class form, which scikit-learn reports by default.

    Args:
        logits: [n, v], any float dtype; -inf means probability 0.
        labels: [n], integers in [0, v).

    Returns:
        Between 0 (sure and right) and 2 (sure and wrong).

    Raises:
        ValueError: shapes do not fit, no examples, NaN, or a label out of range.

    Source: brier1950verification.
    """
    logits = checked_logits(logits)
    labels = checked_labels(labels, logits)
    gaps = softmax(logits, axis=-1)
    gaps[np.arange(len(labels)), labels] -= 1
    return float(np.square(gaps).sum(axis=-1).mean())
