"""Logits and labels that a score can be computed from, in float64.

Every score of this package is a pure NumPy function of whole splits. It takes logits
of any float dtype and goes through here first, so that all refuse the same things.
"""

import numpy as np
from jaxtyping import Float, Int


def checked_logits(logits: Float[np.ndarray, "n v"]) -> Float[np.ndarray, "n v"]:
    """The logits in float64.

    -inf is a class of probability 0, such as padding of a vocabulary, and passes.

    Raises:
        ValueError: not [n, v], no examples, NaN, +inf, or a row of -inf only.
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2:
        raise ValueError(f"expected logits [n, v], got shape {logits.shape}")
    if logits.size == 0:
        raise ValueError(f"there are no predictions: logits have shape {logits.shape}")
    if np.isnan(logits).any():
        raise ValueError("a logit is NaN")
    if not np.isfinite(logits.max(axis=-1)).all():
        raise ValueError("a logit is +inf, or all logits of an example are -inf")
    return logits


def checked_labels(
    labels: Int[np.ndarray, "n"], logits: Float[np.ndarray, "n v"]
) -> Int[np.ndarray, "n"]:
    """The labels, one per row of `logits`.

    Raises:
        ValueError: not [n], not integers, or not in [0, v).
    """
    labels = np.asarray(labels)
    num_examples, num_classes = logits.shape
    if labels.shape != (num_examples,):
        raise ValueError(
            f"expected {num_examples} labels for logits of shape {logits.shape}, "
            f"got shape {labels.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"expected integer labels, got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"expected labels in [0, {num_classes}), got {labels.min()} to "
            f"{labels.max()}"
        )
    return labels
