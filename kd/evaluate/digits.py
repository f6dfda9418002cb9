"""What a representation of a grid of digits has kept of them, told by linear probes.

A network is judged by what can be read off its outputs: a linear classifier for every
place of the grid, trained on one half of dev and asked about the other. The network
has seen neither half, nor any label.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from kd.evaluate.metric import Metric
from kd.evaluate.target import Target


class Probed(NamedTuple):
    """What linear probes find, place by place."""

    accuracy: Float[np.ndarray, "k"]
    """Share of the examples whose digit is found."""
    nats: Float[np.ndarray, "k"]
    """ln 10 less the cross-entropy: a lower bound, on average over examples, of the
    information on the digit; below 0 where a probe is worse than guessing."""


def probe(outputs: Float[np.ndarray, "n d"], digits: Int[np.ndarray, "n k"]) -> Probed:
    """Trains a probe for every place on the first half of the rows, asks the second.

    Logistic regression on outputs of mean 0 and variance 1, with the default penalty of
    scikit-learn (C = 1).

    Args:
        outputs: representations.
        digits: of every place.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    half = len(outputs) // 2
    scaler = StandardScaler().fit(outputs[:half])
    seen, new = (scaler.transform(part) for part in (outputs[:half], outputs[half:]))
    accuracy, nats = [], []
    for place in digits.T:
        classifier = LogisticRegression(max_iter=_MOST_ITERATIONS, tol=1e-3)
        # Of matrices so small several threads wait for each other, a hundred times as
        # long as one computes where others are at work.
        with threadpool_limits(1):
            classifier.fit(seen, place[:half])
        # Those that the first half lacks get nothing.
        chances = np.full((len(new), 10), 1e-6)
        chances[:, classifier.classes_] = classifier.predict_proba(new)
        truth = place[half:]
        accuracy.append((chances.argmax(axis=1) == truth).mean())
        right = np.maximum(chances[np.arange(len(new)), truth], 1e-6)
        nats.append(math.log(10) + np.log(right).mean())
    return Probed(np.array(accuracy), np.array(nats))


_MOST_ITERATIONS = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digits(Target):
    """The digits of a grid, read off a representation of it; a network gives that.

    A target is the number that the grid shows, row by row: 47 is 4 and 7, and with
    three places 0, 4 and 7.

    Attributes:
        num_digits: places of the grid, 1 to 9.
        width: of the representation.
    """

    num_digits: int = 9
    width: int = 64
    targets_name = "numbers_shown"
    outputs_name = "representations"

    def __post_init__(self) -> None:
        if not 1 <= self.num_digits <= 9:
            raise ValueError(f"num_digits must be 1 to 9, got {self.num_digits}")
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"feature {i}" for i in range(self.width))

    def digits(self, targets: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n k"]:
        """Of every place, in the order of reading."""
        powers = 10 ** np.arange(self.num_digits - 1, -1, -1)
        return np.asarray(targets)[:, None] // powers % 10

    def numbers(self, digits: Int[np.ndarray, "n k"]) -> Int[np.ndarray, "n"]:
        """The inverse of `digits`."""
        powers = 10 ** np.arange(self.num_digits - 1, -1, -1)
        # Nine digits are below 2^31.
        return (digits @ powers).astype(np.int32)

    @property
    def official(self) -> tuple[Metric, ...]:
        return (
            Metric(
                "probe_accuracy",
                "accuracy",
                "of linear probes for the digits, on average over the places",
                functools.partial(self._read, _mean_accuracy),
                percent=True,
            ),
            Metric(
                "digits_recovered",
                "digits",
                f"of {self.num_digits}: the same less guessing, summed over the places",
                functools.partial(self._read, _recovered),
            ),
            Metric(
                "probe_information",
                "nats",
                "of information on the digits that the probes find, of "
                f"{self.num_digits * math.log(10):.1f}",
                functools.partial(self._read, _information),
            ),
        )

    def _read(
        self,
        reading: Callable[[Probed], float],
        outputs: np.ndarray,
        targets: np.ndarray,
    ) -> float:
        return reading(probe(outputs, self.digits(targets)))

    def scores(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Every metric, of the same probes."""
        found = probe(outputs, self.digits(targets))
        return {
            "probe_accuracy": _mean_accuracy(found),
            "digits_recovered": _recovered(found),
            "probe_information": _information(found),
        }

    @property
    def fidelity(self) -> tuple[Metric, ...]:
        return ()

    @property
    def watched(self) -> tuple[Metric, ...]:
        return self.official[:1]

    @property
    def has_classes(self) -> bool:
        return False

    @property
    def problem_type(self) -> str:
        return ""

    def parse(self, text: str) -> int:
        if not text.isdecimal() or len(text) > self.num_digits:
            raise ValueError(
                f"number {text!r:.80}; expected at most {self.num_digits} digits"
            )
        return int(text)

    def array(self, values: Sequence[int | float]) -> np.ndarray:
        return np.asarray(values, np.int32)

    def problem(self, targets: np.ndarray) -> str:
        wrong = np.flatnonzero((targets < 0) | (targets >= 10**self.num_digits))
        if not len(wrong):
            return ""
        return (
            f"example {wrong[0]} shows {targets[wrong[0]]}; expected a number of at "
            f"most {self.num_digits} digits"
        )

    def points(self, targets: np.ndarray) -> np.ndarray:
        """1 at every digit, in its place."""
        shown = self.digits(targets)[..., None] == np.arange(10)
        return shown.reshape(len(shown), -1).astype(np.float64)

    def ensemble(self, outputs: Sequence[Any]) -> Any:
        """All representations side by side."""
        return jnp.concatenate([jnp.asarray(x) for x in outputs], axis=1)


def _mean_accuracy(found: Probed) -> float:
    return float(found.accuracy.mean())


def _recovered(found: Probed) -> float:
    return float(((found.accuracy - 0.1) / 0.9).sum())


def _information(found: Probed) -> float:
    return float(found.nats.sum())
