"""What is asked of a network, and how its answers are judged.

A `Target` belongs to a task. Training, results, pages and tables ask it for the number
of outputs, the scores and the main metric; they know no particular one.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from kd.evaluate.metric import Metric
from kd.types import Batch


class Target(abc.ABC):
    """What is predicted of an example. Subclasses are frozen dataclasses."""

    @property
    @abc.abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Name of each output of the network, as its config.json keeps them."""

    @property
    def num_outputs(self) -> int:
        """Of the network, for each example."""
        return len(self.labels)

    @property
    @abc.abstractmethod
    def official(self) -> tuple[Metric, ...]:
        """What the field reports of the task, the main metric first."""

    @property
    def usual(self) -> tuple[Metric, ...]:
        """What is reported of any such target, official or not."""
        return ()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Everything that is reported, `official` first."""
        return (*self.official, *(m for m in self.usual if m not in self.official))

    @property
    @abc.abstractmethod
    def fidelity(self) -> tuple[Metric, ...]:
        """How near a student's outputs are to its teacher's: compute(student, teacher).

        The first is the one that is drawn beside the main metric.
        """

    @property
    @abc.abstractmethod
    def watched(self) -> tuple[Metric, ...]:
        """What every evaluation during training logs."""

    @property
    def watched_fidelity(self) -> tuple[Metric, ...]:
        """Measures of fidelity that every evaluation during training logs."""
        return self.fidelity[:2]

    @property
    def has_classes(self) -> bool:
        """Whether outputs are logits, so that a softmax of them means something."""
        return True

    keeps_logits: ClassVar[bool] = True
    """Whether what is kept of a network's outputs is its logits, whole."""
    compares_beside: ClassVar[bool] = False
    """Whether `keep_beside` keeps more than `keep`."""
    writes: ClassVar[bool] = False
    """Whether a network is judged by texts that it writes, too: see `with_texts`."""
    of_tokens: ClassVar[bool] = False
    """Whether a network gives logits [b, n, v], a prediction for every token."""

    def keep(self, logits: Any, batch: Batch) -> Any:
        """What evaluation keeps of a network's logits for a batch, [b, ...].

        The metrics are functions of this. Where logits of a whole split are too many
        to hold, a target keeps less of them.

        Args:
            logits: of JAX.
            batch: what the network read.
        """
        del batch
        return logits

    def keep_beside(self, student: Any, teacher: Any, batch: Batch) -> Any:
        """The same of a student, with what only its teacher's logits beside it tell.

        Asked of the final student alone, where `compares_beside`.
        """
        del teacher
        return self.keep(student, batch)

    def with_texts(self, kept: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """What `keep` kept of a split and what was written there, as one array [n]."""
        raise NotImplementedError(f"{type(self).__name__} judges no texts")

    @property
    def problem_type(self) -> str:
        """What transformers calls it."""
        return "single_label_classification"

    @property
    def main(self) -> Metric:
        return self.official[0]

    @abc.abstractmethod
    def parse(self, text: str) -> int | float:
        """The target that a data file writes as `text`.

        Raises:
            ValueError: it is none; the message says what was expected.
        """

    @abc.abstractmethod
    def array(self, values: Sequence[int | float]) -> np.ndarray:
        """Targets of many examples, [n], as the batches have them."""

    @abc.abstractmethod
    def problem(self, targets: np.ndarray) -> str:
        """What is wrong with the first wrong target; empty where none is."""

    def points(self, targets: np.ndarray) -> np.ndarray:
        """Targets as points [n, k], whose distances say how different they are."""
        return np.asarray(targets, np.float64)[:, None]

    def metric(self, name: str) -> Metric:
        """The metric of a name, or the measure of fidelity.

        Raises:
            ValueError: there is none; the message lists those there are.
        """
        known = [*self.metrics, *self.fidelity]
        for metric in known:
            if metric.name == name:
                return metric
        raise ValueError(
            f"there is no metric {name!r}; there are "
            f"{', '.join(metric.name for metric in known)}"
        )

    def scores(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Every metric of a network's outputs on a split."""
        return {m.name: m.compute(outputs, targets) for m in self.metrics}

    def compare(self, student: np.ndarray, teacher: np.ndarray) -> dict[str, float]:
        """Every measure of fidelity."""
        return {m.name: m.compute(student, teacher) for m in self.fidelity}

    targets_name: ClassVar[str] = "targets"
    outputs_name: ClassVar[str] = "outputs"
    """What a file of predictions calls the targets, and a network's outputs."""

    def predictions(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """What `predictions.npz` holds.

        Args:
            targets: of the examples that final networks are scored on, [n].
            outputs: of each network by its name ("student", "teacher"), [n, v].

        Returns:
            `<targets_name>` [n] and, of each network, `<name>_<outputs_name>` [n, v].
        """
        named = {f"{k}_{self.outputs_name}": v for k, v in outputs.items()}
        return {self.targets_name: targets} | named

    def read_predictions(
        self, arrays: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Targets and outputs again, from what `predictions` gave.

        Raises:
            KeyError: an array is missing.
        """
        ending = f"_{self.outputs_name}"
        outputs = {k: arrays[k] for k in arrays if k.endswith(ending)}
        return arrays[self.targets_name], {
            name.removesuffix(ending): values for name, values in outputs.items()
        }

    @abc.abstractmethod
    def ensemble(self, outputs: Sequence[Any]) -> Any:
        """The outputs of several networks as those of one; of JAX or NumPy."""

    def described(self) -> dict[str, Any]:
        """For a summary: which metrics there are, and how to show them."""
        return {
            "main": self.main.name,
            "metrics": [metric.described() for metric in self.metrics],
            "fidelity": [metric.described() for metric in self.fidelity],
            "official": [metric.name for metric in self.official],
        }
