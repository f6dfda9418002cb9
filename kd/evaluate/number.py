"""A number: the target of a regression, and its metrics."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float

from kd.evaluate.metric import Metric
from kd.evaluate.target import Target


def pearson(
    outputs: Float[np.ndarray, "n 1"], targets: Float[np.ndarray, "n ..."]
) -> float:
    """Pearson correlation, in [-1, 1]; 0 where either is constant."""
    x, y = _checked(outputs, targets)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(scipy.stats.pearsonr(x, y).statistic)


def spearman(
    outputs: Float[np.ndarray, "n 1"], targets: Float[np.ndarray, "n ..."]
) -> float:
    """Pearson correlation of the ranks; 0 where either is constant."""
    x, y = _checked(outputs, targets)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(scipy.stats.spearmanr(x, y).statistic)


def mean_squared_error(
    outputs: Float[np.ndarray, "n 1"], targets: Float[np.ndarray, "n ..."]
) -> float:
    """mean_i (s_i - y_i)^2, in squared units of the target."""
    x, y = _checked(outputs, targets)
    return float(np.square(x - y).mean())


def _checked(outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(values, np.float64) for values in (outputs, targets))
    x, y = (v[:, 0] if v.ndim == 2 and v.shape[1] == 1 else v for v in (x, y))
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(
            f"expected numbers [n, 1] and targets [n], got {np.shape(outputs)} and "
            f"{np.shape(targets)}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a number is not finite")
    return x, y


PEARSON = Metric("pearson", "Pearson", "linear correlation with the target", pearson)
SPEARMAN = Metric("spearman", "Spearman", "correlation of the ranks", spearman)
MSE = Metric(
    "mse",
    "MSE",
    "mean squared error, in squared units of the target",
    mean_squared_error,
    higher_is_better=False,
)
LIKENESS = Metric(
    "pearson", "Pearson", "correlation with the teacher's numbers", pearson
)
DISTANCE = Metric(
    "mse",
    "squared difference",
    "mean squared distance from the teacher's numbers",
    mean_squared_error,
    higher_is_better=False,
)


@dataclasses.dataclass(frozen=True)
class Number(Target):
    """A number in a range; a network gives one output, as it is.

    Attributes:
        lowest: of the targets.
        highest: of the targets.
        official: the metrics that the field reports, the main one first.
        title: what the number is called.
    """

    lowest: float = 0.0
    highest: float = 1.0
    official: tuple[Metric, ...] = (PEARSON, SPEARMAN)  # pyrefly: ignore
    title: str = "score"
    outputs_name = "numbers"

    def __post_init__(self) -> None:
        if not self.lowest < self.highest:
            raise ValueError(
                f"lowest must be below highest, got {self.lowest} and {self.highest}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.title,)

    @property
    def usual(self) -> tuple[Metric, ...]:
        return (PEARSON, SPEARMAN, MSE)

    @property
    def fidelity(self) -> tuple[Metric, ...]:
        return (LIKENESS, DISTANCE)

    @property
    def watched(self) -> tuple[Metric, ...]:
        return (*self.official, MSE)

    @property
    def has_classes(self) -> bool:
        return False

    @property
    def problem_type(self) -> str:
        return "regression"

    def parse(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not self.lowest <= number <= self.highest:
            raise ValueError(
                f"{self.title} {text!r}; expected a number from {self.lowest:g} to "
                f"{self.highest:g}"
            )
        return number

    def array(self, values: Sequence[int | float]) -> np.ndarray:
        return np.asarray(values, np.float32)

    def problem(self, targets: np.ndarray) -> str:
        wrong = np.flatnonzero(~((targets >= self.lowest) & (targets <= self.highest)))
        if not len(wrong):
            return ""
        return (
            f"the {self.title} of example {wrong[0]} is {targets[wrong[0]]}; expected "
            f"{self.lowest:g} to {self.highest:g}"
        )

    def predictions(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """`targets` [n] and `<name>_numbers` [n]."""
        return super().predictions(targets, {k: v[:, 0] for k, v in outputs.items()})

    def read_predictions(
        self, arrays: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        targets, outputs = super().read_predictions(arrays)
        return targets, {name: v[:, None] for name, v in outputs.items()}

    def ensemble(self, outputs: Sequence[Any]) -> Any:
        """The mean of the numbers."""
        return sum(outputs) / len(outputs)
