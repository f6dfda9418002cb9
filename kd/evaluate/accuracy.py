"""Whether the predicted class is right: accuracy, and scores for unbalanced labels.

The predicted class is that of the largest logit, the first of them where several tie.
"""

import numpy as np
from jaxtyping import Float, Int

from kd.evaluate.predictions import checked_labels, checked_logits


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
    return float(np.mean(logits.argmax(axis=-1) == labels))


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
    predicted, actual = logits.argmax(axis=-1) == positive, labels == positive
    either = np.sum(predicted) + np.sum(actual)  # 2 TP + FP + FN
    return float(2 * np.sum(predicted & actual) / either) if either else 0.0


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
    num_examples, num_classes = logits.shape
    classes = logits.argmax(axis=-1)
    right = np.sum(classes == labels, dtype=np.float64)
    predicted, actual = (
        np.bincount(values, minlength=num_classes).astype(np.float64)
        for values in (classes, labels)
    )
    covariance = right * num_examples - predicted @ actual
    variances = [num_examples**2 - counts @ counts for counts in (predicted, actual)]
    return float(covariance / np.sqrt(np.prod(variances))) if all(variances) else 0.0
