"""What is reported of any classifier on a labelled split."""

import numpy as np
from jaxtyping import Float, Int

from kd.evaluate import accuracy, calibration


def scores(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]
) -> dict[str, float]:
    """Accuracy, Matthews correlation, negative log-likelihood in nats, ECE, Brier."""
    return {
        "accuracy": accuracy.accuracy(logits, labels),
        "mcc": accuracy.matthews_correlation(logits, labels),
        "nll": calibration.negative_log_likelihood(logits, labels),
        "ece": calibration.reliability(logits, labels).expected_calibration_error,
        "brier": calibration.brier_score(logits, labels),
    }
