"""What of a training set is learnt from: which examples, labels and teachers' answers.

Comparisons with less data, worse labels, or fewer questions to a teacher than there
are. What is drawn is a pure function of these settings and the labels; dev is never
touched.
"""

import dataclasses
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int, Shaped

from kd.evaluate.target import Target

S = TypeVar("S", bound="Sampled")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampled:
    """A sample of the training examples and what is known of them; all by default.

    The shares are of every class alike, rounded, with at least one example, one label
    and one answer of each; where the target is a number, of all examples. A smaller
    share is part of a larger one of the same seed. Tokenizer and normalization are made
    from the whole training set all the same, so that they are those of every sample.
    """

    fraction: float = 1.0
    """Share of the training examples that are kept, above 0."""
    unlabelled: float = 0.0
    """Share of the kept examples whose label is hidden, below 1: losses that read
    labels leave them out, and only a teacher teaches there."""
    label_noise: float = 0.0
    """Share of the labels left that are replaced by another class, drawn uniformly."""
    unanswered: float = 0.0
    """Share of the kept examples that no teacher is asked about, below 1: losses that
    need a teacher leave them out, and only labels teach there."""
    subset_seed: int = 0
    """Of what is drawn; not the experiment's, whose seeds share one sample."""

    def check_sample(self, target: Target) -> None:
        """Raises ValueError if there is no such sample of examples with this target."""
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must lie in (0, 1], got {self.fraction}")
        if not 0 <= self.unlabelled < 1:
            raise ValueError(f"unlabelled must lie in [0, 1), got {self.unlabelled}")
        if not 0 <= self.unanswered < 1:
            raise ValueError(f"unanswered must lie in [0, 1), got {self.unanswered}")
        if not 0 <= self.label_noise <= 1:
            raise ValueError(f"label_noise must lie in [0, 1], got {self.label_noise}")
        if self.label_noise and target.of_tokens:
            raise ValueError(
                "label_noise draws another class, and the target is text; it must be "
                f"0, got {self.label_noise}"
            )
        if self.label_noise and not target.has_classes:
            raise ValueError(
                "label_noise draws another class, and the target is a number; it "
                f"must be 0, got {self.label_noise}"
            )
        if not 0 <= self.subset_seed < 2**32:
            raise ValueError(
                f"subset_seed must lie in [0, 2^32), got {self.subset_seed}"
            )

    def with_sample_of(self: S, other: "Sampled") -> S:
        """The same with the settings of another record."""
        names = [field.name for field in dataclasses.fields(Sampled)]
        return dataclasses.replace(self, **{n: getattr(other, n) for n in names})

    def sample(
        self, labels: Shaped[np.ndarray, "num_examples ..."], target: Target
    ) -> "Sample":
        """Draws from a training set with these labels."""
        alike = not target.has_classes or target.of_tokens
        stratum = np.zeros(len(labels), np.int32) if alike else labels
        kept = _share(np.arange(len(labels)), stratum, self.fraction, self._random(0))
        hidden = _share(
            kept, stratum, self.unlabelled, self._random(1), num_left=1, at_least=0
        )
        unasked = _share(
            kept, stratum, self.unanswered, self._random(4), num_left=1, at_least=0
        )
        labelled, answered = np.ones((2, len(labels)), bool)
        labelled[hidden] = answered[unasked] = False
        with_label = kept[labelled[kept]]
        changed = _share(
            with_label, np.zeros_like(stratum), self.label_noise, self._random(2),
            at_least=0,
        )  # fmt: skip
        if len(changed):
            # One draw for each example there is, so that its wrong class is the same
            # in every sample.
            steps = self._random(3).integers(1, target.num_outputs, len(labels))
            wrong = (labels + steps) % target.num_outputs
            labels = labels.copy()
            labels[changed] = wrong[changed]
        if len(hidden):
            labels = labels.copy()
            labels[hidden] = -1 if target.has_classes else np.nan
        return Sample(kept, labels, labelled, answered, num_changed=len(changed))

    def _random(self, stream: int) -> np.random.Generator:
        # No stream of `kd.data.pipeline`, which counts epochs from 0.
        key = np.array([self.subset_seed, 2**63 + stream], np.uint64)
        return np.random.Generator(np.random.Philox(key=key))


def _share(
    members: Int[np.ndarray, "n"],
    stratum: Shaped[np.ndarray, "num_examples"],
    share: float,
    random: np.random.Generator,
    *,
    at_least: int = 1,
    num_left: int = 0,
) -> Int[np.ndarray, "k"]:
    """A share of some examples, of each stratum alike; increasing.

    Args:
        members: the examples to choose from.
        stratum: of every example there is.
        share: between 0 and 1; the number of each stratum is rounded, half up.
        random: gives an order of all examples, whose first members are taken.
        at_least: to take from each stratum that has members.
        num_left: of each stratum that are not taken.
    """
    order = random.permutation(len(stratum))
    order = order[np.isin(order, members)]
    found = [np.zeros(0, np.int64)]
    for one in np.unique(stratum[members]):
        candidates = order[stratum[order] == one]
        number = max(int(share * len(candidates) + 0.5), at_least)
        found.append(candidates[: min(number, len(candidates) - num_left)])
    return np.sort(np.concatenate(found))


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """What was drawn of a training set."""

    kept: Int[np.ndarray, "k"]
    """The examples to learn from, by their place in the split; increasing."""
    labels: Shaped[np.ndarray, "num_examples ..."]
    """Of every example of the split, as learnt from; -1, or NaN, where hidden."""
    labelled: Bool[np.ndarray, "num_examples"]
    """Where the label is not hidden."""
    answered: Bool[np.ndarray, "num_examples"]
    """Where teachers may be asked."""
    num_changed: int
    """Labels that are of another class than the data say."""

    @property
    def num_labelled(self) -> int:
        return int(self.labelled[self.kept].sum())

    @property
    def asked(self) -> Int[np.ndarray, "q"]:
        """The examples that teachers are asked about; increasing."""
        return self.kept[self.answered[self.kept]]

    @property
    def is_whole(self) -> bool:
        """Whether it is the training set as it is."""
        whole = len(self.kept) == len(self.labels) == self.num_labelled
        return whole and len(self.asked) == len(self.kept) and not self.num_changed

    def only(self, these: Bool[np.ndarray, "num_examples"]) -> "Sample":
        """Without the examples of the split where `these` is False."""
        return dataclasses.replace(self, kept=self.kept[these[self.kept]])

    def of_batch(
        self, index: Int[np.ndarray, "b"], mask: Bool[np.ndarray, "b"]
    ) -> dict[str, np.ndarray]:
        """What a batch says of the labels and answers of its examples.

        Args:
            index: the examples, by their place in the split.
            mask: False on padding rows.

        Returns:
            "labels" [b] and, where some of the sample are hidden, "label_weight" [b]
            float32: n / m for the m of the n examples of the batch with a label, 0
            for the others. So the mean over the n of a loss times its weight is its
            mean over the m, whatever parts a batch is processed in. Likewise
            "answer_weight" where teachers are not asked about all, and beside both
            "label_and_answer_weight", of the examples that have the two.
        """
        lacking = {}
        if self.num_labelled < len(self.kept):
            lacking["label"] = self.labelled[index]
        if len(self.asked) < len(self.kept):
            lacking["answer"] = self.answered[index]
        if len(lacking) == 2:
            lacking["label_and_answer"] = lacking["label"] & lacking["answer"]
        batch = {"labels": self.labels[index]}
        for name, known in lacking.items():
            counts = mask & known
            weight = counts * (mask.sum() / max(counts.sum(), 1))
            batch[f"{name}_weight"] = weight.astype(np.float32)
        return batch

    def counts(self) -> dict[str, int]:
        """For a summary."""
        return {
            "num_examples": len(self.kept),
            "num_labelled": self.num_labelled,
            "num_changed_labels": self.num_changed,
            "num_answered": len(self.asked),
        }
