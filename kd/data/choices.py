"""Tasks of choices: which of several texts goes with a premise.

Each choice is read by the network with the premise and gets one number; the numbers of
an example's choices are its logits. So a batch has an axis more, [b, c, n], and a
network has one output.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int, Shaped

from kd.data.sentences import TextTask
from kd.data.task import Corpus, Prepared
from kd.data.text import Encoded, Sentences
from kd.models.bert_checkpoint import Head
from kd.types import Architecture, ComputeDtype, Model, Outputs


@dataclasses.dataclass(frozen=True, eq=False)
class Choices(Sentences):
    """Pairs of premise and choice, the choices of an example one after the other.

    `texts` and `pairs` have c entries for each of the n targets.
    """

    @classmethod
    def of_choices(
        cls, examples: Iterable[tuple[Sequence[str], Any]], labels: Any
    ) -> "Choices":
        """Records of ([premise, choice, choice, ...], target)."""
        texts, pairs, targets = [], [], []
        for (premise, *choices), target in examples:
            texts.extend([premise] * len(choices))
            pairs.extend(choices)
            targets.append(target)
        return cls(texts, labels(targets), pairs)

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedChoices:
    """A split of n examples with c choices each, as token ids.

    Attributes:
        rows: the n c pairs of premise and choice.
        labels: target of every example, [n].
    """

    rows: Encoded
    labels: Shaped[np.ndarray, "num_examples"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def _of_examples(self) -> Int[np.ndarray, "num_examples c"]:
        return np.arange(len(self.rows.offsets) - 1).reshape(len(self.labels), -1)

    @property
    def groups(self) -> Int[np.ndarray, "num_examples"]:
        """Examples whose longest choice is padded to the same width."""
        return self.rows.groups[self._of_examples].max(axis=1)

    def inputs(self, index: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """Tokens, token_mask and segments, [b, c, n] each."""
        rows = self._of_examples[index]
        found = self.rows.inputs(rows.ravel())
        return {k: v.reshape(*rows.shape, -1) for k, v in found.items()}

    def content(self) -> bytes:
        return self.rows.content()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoiceTask(TextTask):
    """Which of several choices; `columns` are the premise, then the choices."""

    num_texts: ClassVar[tuple[int, ...]] = (3, 4, 5, 6)

    def records(self, examples: Iterable[tuple[Sequence[str], Any]]) -> Choices:
        return Choices.of_choices(examples, self.target.array)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the network, which has one output."""
        return ("choice",)

    @property
    def head(self) -> Head:
        return "MultipleChoice"

    def build(
        self,
        network: Architecture,
        *,
        vocab_size: int = 0,
        compute_dtype: ComputeDtype = "float32",
    ) -> Model:
        """The network on every choice; its hidden states are not exposed."""
        del vocab_size
        one = network.build(1, compute_dtype=compute_dtype)

        def flat(batch):
            return {
                name: value.reshape(-1, value.shape[-1]) if value.ndim == 3 else value
                for name, value in batch.items()
            }

        def init(key, batch):
            return one.init(key, flat(batch))

        def apply(params, batch, key):
            logits = one.apply(params, flat(batch), key).logits
            return Outputs(logits=logits.reshape(batch["tokens"].shape[:2]))

        return Model(init, apply)

    def encode(self, corpus: Corpus[Any], directory: Path) -> Prepared:
        prepared = super().encode(corpus, directory)

        def together(split: Any, records: Any) -> EncodedChoices:
            return EncodedChoices(split, records.labels)

        return prepared._replace(
            train=together(prepared.train, corpus.train),
            dev=together(prepared.dev, corpus.dev),
            test=None if corpus.test is None else together(prepared.test, corpus.test),
        )
