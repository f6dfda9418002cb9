"""Whether the probabilities of a classifier mean what they say.

The confidence of a prediction is the probability of its likeliest class. A model is
calibrated if it is right on 80 % of the predictions made with confidence 0.8.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import log_softmax, softmax

from kd.evaluate.predictions import checked_labels, checked_logits


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence against accuracy, in bins.

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

    @property
    def debiased_squared_error(self) -> float:
        """Squared gap between confidence and accuracy, without the noise of the bins.

            sum_k (n_k / n) ((accuracy_k - confidence_k)^2
                             - accuracy_k (1 - accuracy_k) / (n_k - 1))

        over bins of at least two predictions; the others count as 0. What is
        subtracted is the variance of accuracy_k, which the square contains: where the
        confidences of a bin are much alike the estimate is on average 0 for a
        calibrated model, whatever the number of predictions, as the ECE is not. So it
        may be negative. In units of a squared probability.

        Source: kumar2019verified, sec. 5, the debiased estimator; their code takes the
        root of its positive part.
        """
        enough = self.count > 1
        accuracy, count = self.accuracy[enough], self.count[enough]
        variance = accuracy * (1 - accuracy) / (count - 1)
        squares = np.square(accuracy - self.confidence[enough]) - variance
        return float(np.sum(count * squares) / np.sum(self.count))


def reliability(
    logits: Float[np.ndarray, "n v"],
    labels: Int[np.ndarray, "n"],
    *,
    num_bins: int = 15,
    equal_mass: bool = False,
) -> Reliability:
    """Sorts predictions into bins by their confidence.

    Args:
        logits: [n, v], any float dtype; -inf means probability 0.
        labels: [n], integers in [0, v).
        num_bins: 15 as in the experiments of guo2017calibration.
        equal_mass: whether a bin has as many predictions as the next, but that equal
            confidences share one, rather than being as wide. Edges are then in the
            middle between confidences, and bins fewer where these coincide.

    Returns:
        The bins, for a reliability diagram, and with them the expected calibration
        error.

    Raises:
        ValueError: shapes do not fit, no examples, NaN, a label out of range, or
            num_bins < 1.

    Source: guo2017calibration, sec. 2; of equal mass kumar2019verified, whose code
    has these edges.
    """
    logits = checked_logits(logits)
    labels = checked_labels(labels, logits)
    return in_bins(
        softmax(logits, axis=-1).max(axis=-1),
        logits.argmax(axis=-1) == labels,
        num_bins=num_bins,
        equal_mass=equal_mass,
    )


def in_bins(
    confidence: Float[np.ndarray, "n"],
    right: Bool[np.ndarray, "n"],
    *,
    num_bins: int = 15,
    equal_mass: bool = False,
) -> Reliability:
    """`reliability` of predictions that are known by their confidence alone.

    Args:
        confidence: of each, in (0, 1].
        right: whether it is.
        num_bins: see `reliability`.
        equal_mass: likewise.

    Raises:
        ValueError: num_bins < 1.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    edges = (
        _edges_of_equal_mass(confidence, num_bins)
        if equal_mass
        else np.arange(num_bins + 1) / num_bins
    )
    num_bins = len(edges) - 1
    bins = np.searchsorted(edges[1:-1], confidence, side="left")
    count = np.bincount(bins, minlength=num_bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in empty bins
        return Reliability(
            edges=edges,
            confidence=np.bincount(bins, confidence, num_bins) / count,
            accuracy=np.bincount(bins, right, num_bins) / count,
            count=count,
        )


def _edges_of_equal_mass(
    confidence: Float[np.ndarray, "n"], num_bins: int
) -> Float[np.ndarray, "num_edges"]:
    ordered = np.sort(confidence)
    parts = [part for part in np.array_split(ordered, num_bins) if len(part)]
    last = np.array([part[-1] for part in parts[:-1]])
    first = np.array([part[0] for part in parts[1:]])
    return np.unique(np.concatenate([[0.0], (last + first) / 2, [1.0]]))


def expected_calibration_error(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]
) -> float:
    """That of `reliability` with 15 bins of equal width."""
    return reliability(logits, labels).expected_calibration_error


def equal_mass_calibration_error(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]
) -> float:
    """The expected calibration error in 15 bins of equal mass.

    A confident model leaves most bins of equal width empty; these all count.
    """
    return reliability(logits, labels, equal_mass=True).expected_calibration_error


def squared_calibration_error(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]
) -> float:
    """`Reliability.debiased_squared_error` in 15 bins of equal mass."""
    return reliability(logits, labels, equal_mass=True).debiased_squared_error


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
