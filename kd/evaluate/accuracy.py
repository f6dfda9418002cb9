"""How often a classifier is right."""

import numpy as np
from jaxtyping import Float, Int


def accuracy(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]
) -> float:
    """Share of the examples whose largest logit is that of their label.

    Raises:
        ValueError: shapes do not fit, there are no examples, or a logit is NaN.
    """
    check(logits, labels)
    return float(np.mean(logits.argmax(axis=-1) == labels))


def check(logits: np.ndarray, labels: np.ndarray) -> None:
    """Refuses what no score can be computed from.

    Raises:
        ValueError: shapes do not fit, there are no examples, or a logit is NaN.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"expected logits [n, v] and labels [n], got {logits.shape} and "
            f"{labels.shape}"
        )
    if not len(labels):
        raise ValueError("there are no examples")
    if np.isnan(logits).any():
        raise ValueError("a logit is NaN")
