"""One of several classes: the target of a classification, and its metrics."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kd.evaluate import accuracy, calibration, fidelity
from kd.evaluate.metric import Metric
from kd.evaluate.target import Target

ACCURACY = Metric(
    "accuracy",
    "accuracy",
    "examples predicted right",
    accuracy.accuracy,
    percent=True,
    is_share=True,
)
F1 = Metric(
    "f1",
    "F1",
    "harmonic mean of precision and recall of the second class",
    accuracy.f1,
    percent=True,
)
MACRO_F1 = Metric(
    "macro_f1",
    "macro F1",
    "F1 of each class, averaged over the classes",
    accuracy.macro_f1,
    percent=True,
)
MCC = Metric(
    "mcc",
    "MCC",
    "Matthews correlation of predictions with labels: 0 is guessing, 1 is perfect",
    accuracy.matthews_correlation,
)
NLL = Metric(
    "nll",
    "NLL",
    "cross-entropy with the labels, nats",
    calibration.negative_log_likelihood,
    higher_is_better=False,
)
ECE = Metric(
    "ece",
    "ECE",
    "how far confidence is from accuracy, on average",
    calibration.expected_calibration_error,
    higher_is_better=False,
    percent=True,
)
ECE_EQUAL_MASS = Metric(
    "ece_equal_mass",
    "ECE, equal mass",
    "the same, in bins of as many examples each",
    calibration.equal_mass_calibration_error,
    higher_is_better=False,
    percent=True,
)
SQUARED_CALIBRATION_ERROR = Metric(
    "squared_calibration_error",
    "squared calibration error",
    "of confidence, debiased: about 0 where calibrated, or below",
    calibration.squared_calibration_error,
    higher_is_better=False,
)
BRIER = Metric(
    "brier",
    "Brier score",
    "squared distance of the probabilities from the label",
    calibration.brier_score,
    higher_is_better=False,
)
AGREEMENT = Metric(
    "agreement",
    "agreement",
    "of the examples: same class as the teacher",
    fidelity.agreement,
    percent=True,
)
KL = Metric(
    "kl",
    "KL divergence",
    "teacher ‖ student, nats per example",
    fidelity.kl,
    higher_is_better=False,
)
TOTAL_VARIATION = Metric(
    "total_variation",
    "total variation",
    "probability placed differently",
    fidelity.total_variation,
    higher_is_better=False,
)
RANK_CORRELATION = Metric(
    "rank_correlation",
    "rank correlation",
    "of the classes' order with the teacher's, 1 if the same",
    fidelity.rank_correlation,
)


@dataclasses.dataclass(frozen=True)
class Classes(Target):
    """One of several classes; a network gives a logit for each.

    Attributes:
        labels: class `i` is called `labels[i]`.
        official: the metrics that the field reports, the main one first.
        written: what data files write for class `i`, where that is not its name.
    """

    labels: tuple[str, ...] = ()  # pyrefly: ignore
    official: tuple[Metric, ...] = (ACCURACY,)  # pyrefly: ignore
    written: tuple[str, ...] = ()
    targets_name = "labels"
    outputs_name = "logits"

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ValueError(
                f"labels needs at least two names, all different, got {self.labels}"
            )
        if self.written and len(self.written) != len(self.labels):
            raise ValueError(
                f"written has {len(self.written)} entries for {len(self.labels)} labels"
            )

    @property
    def usual(self) -> tuple[Metric, ...]:
        return (
            ACCURACY, MCC, NLL, ECE, ECE_EQUAL_MASS, SQUARED_CALIBRATION_ERROR, BRIER,
        )  # fmt: skip

    @property
    def fidelity(self) -> tuple[Metric, ...]:
        always = (AGREEMENT, KL, TOTAL_VARIATION)
        # Of two classes it is 1 or -1, as they agree or not.
        return always if len(self.labels) == 2 else (*always, RANK_CORRELATION)

    @property
    def watched(self) -> tuple[Metric, ...]:
        return (*self.official, NLL)

    def parse(self, text: str) -> int:
        # Names decide before positions: classes may be called "1" and "2".
        names = self.written or self.labels
        if text in names:
            return names.index(text)
        numbers = [str(i) for i in range(len(names))]
        if text in numbers and not any(name.isdecimal() for name in names):
            return numbers.index(text)
        shown = ", ".join(map(repr, names))
        shown = shown if len(shown) <= 80 else shown[:80] + "…"
        digits = any(name.isdecimal() for name in names)
        which = shown if digits else f"0 to {len(names) - 1} or {shown}"
        raise ValueError(f"label {text!r}; expected {which}")

    def array(self, values: Sequence[int | float]) -> np.ndarray:
        return np.asarray(values, np.int32)

    def problem(self, targets: np.ndarray) -> str:
        wrong = np.flatnonzero((targets < 0) | (targets >= len(self.labels)))
        if not len(wrong):
            return ""
        return (
            f"example {wrong[0]} is of class {targets[wrong[0]]}; expected 0 to "
            f"{len(self.labels) - 1}"
        )

    def points(self, targets: np.ndarray) -> np.ndarray:
        """1 at the class, 0 elsewhere."""
        return (targets[:, None] == np.arange(len(self.labels))).astype(np.float64)

    def ensemble(self, outputs: Sequence[Any]) -> Any:
        """Logits of the mean of the networks' probabilities.

        log (1/k sum_i softmax(t_i))
        """
        logs = jnp.stack([jax.nn.log_softmax(jnp.asarray(x)) for x in outputs])
        return jax.nn.logsumexp(logs, axis=0) - np.log(len(outputs))
