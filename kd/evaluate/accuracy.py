"""Whether the predicted class is right: accuracy, and scores for unbalanced labels.

The predicted class is that of the largest logit, the first of them where several tie.
"""

import warnings
from typing import Any

import numpy as np
import sklearn.metrics
from jaxtyping import Float, Int

from kd.evaluate.predictions import checked_labels, checked_logits

# Without the type checker's stubs, which are older than scikit-learn.
_metrics: Any = sklearn.metrics


def accuracy(logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]) -> float:
    """Share of the examples whose predicted class is their label.

        accuracy = mean_i [argmax_v logits_iv = y_i]

    Args:
        logits: [n, v], any float dtype; -inf means probability 0.
        labels: [n], integers in [0, v).

    Returns:
        Between 0 and 1.

    Raises:
        ValueError: shapes do not fit, no examples, NaN, or a label out of range.
    """
    logits = checked_logits(logits)
    labels = checked_labels(labels, logits)
    return float(_metrics.accuracy_score(labels, logits.argmax(axis=-1)))


def f1(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"], *, positive: int = 1
) -> float:
    """Harmonic mean of precision and recall of one class.

        F1 = 2 TP / (2 TP + FP + FN)

    Args:
        logits: [n, v], any float dtype.
        labels: [n], integers in [0, v).
        positive: the class in question, in [0, v).

    Returns:
        Between 0 and 1; 0 where the class is neither predicted nor a label.

    Raises:
        ValueError: shapes do not fit, no examples, NaN, or a label out of range.
    """
    logits = checked_logits(logits)
    labels = checked_labels(labels, logits)
    if not 0 <= positive < logits.shape[1]:
        raise ValueError(
            f"there is no class {positive}, only {logits.shape[1]} classes"
        )
    return float(
        _metrics.f1_score(
            labels == positive, logits.argmax(axis=-1) == positive, zero_division=0.0
        )
    )


def macro_f1(logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]) -> float:
    """F1 of each class, averaged over the classes.

        1/v sum_v F1_v

    over all v classes, 0 for one that is neither predicted nor a label.

    Args:
        logits: [n, v], any float dtype.
        labels: [n], integers in [0, v).

    Raises:
        ValueError: shapes do not fit, no examples, NaN, or a label out of range.
    """
    logits = checked_logits(logits)
    labels = checked_labels(labels, logits)
    return float(
        _metrics.f1_score(
            labels,
            logits.argmax(axis=-1),
            labels=np.arange(logits.shape[1]),
            average="macro",
            zero_division=0.0,
        )
    )


def matthews_correlation(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]
) -> float:
    """Correlation of predicted classes with labels, for any number of classes.

        MCC = (c n - sum_v t_v p_v) / sqrt((n^2 - sum_v p_v^2) (n^2 - sum_v t_v^2))

    where c of the n examples are right, p_v are predicted to be of class v and t_v
    are. With two classes it is the coefficient that GLUE reports for CoLA.

    Args:
        logits: [n, v], any float dtype.
        labels: [n], integers in [0, v).

    Returns:
        At most 1; 0 for guessing, and where predictions or labels are all of one
        class.

    Raises:
        ValueError: shapes do not fit, no examples, NaN, or a label out of range.

    Source: matthews1975comparison; for several classes gorodkin2004comparing.
    """
    logits = checked_logits(logits)
    labels = checked_labels(labels, logits)
    with warnings.catch_warnings():
        # Of labels and predictions that are all one class, which is the 0 above.
        warnings.simplefilter("ignore", UserWarning)
        return float(_metrics.matthews_corrcoef(labels, logits.argmax(axis=-1)))
