"""What is reported of any classifier on a labelled split."""

import numpy as np
from jaxtyping import Float, Int

from kd.evaluate import accuracy, calibration


def scores(
    logits: Float[np.ndarray, "n v"], labels: Int[np.ndarray, "n"]
) -> dict[str, float]:
    """Accuracy, negative log-likelihood in nats, calibration error, Brier score."""
    return {
        "accuracy": accuracy.accuracy(logits, labels),
        "nll": calibration.negative_log_likelihood(logits, labels),
        "ece": calibration.reliability(logits, labels).expected_calibration_error,
        "brier": calibration.brier_score(logits, labels),
    }
