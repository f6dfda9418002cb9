"""From sentences to WordPiece ids.

The encoded split is two flat arrays, whatever its size. The tokenizers themselves are
made, loaded and saved in `kd.data.wordpiece`.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Bool, Int, Shaped

from kd.data.wordpiece import WordPiece, fingerprint, load, save, train

__all__ = [
    "Encoded",
    "Sentences",
    "WordPiece",
    "encode",
    "fingerprint",
    "load",
    "save",
    "train",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Sentences:
    """The examples of one split of a text task, in order."""

    texts: list[str]
    """Sentences, without white space around them; the first ones of pairs."""
    labels: Shaped[np.ndarray, "n"]
    """Targets: classes int32 in [0, v), or numbers float32."""
    pairs: list[str] | None = None
    """The second sentences of pairs."""

    @classmethod
    def of(
        cls,
        examples: Iterable[tuple[Sequence[str], Any]],
        as_array: Callable[[list[Any]], np.ndarray] = lambda x: np.array(x, np.int32),
    ) -> "Sentences":
        """Records of ([text] or [text, pair], target)."""
        texts, pairs, labels = [], [], []
        for sentences, label in examples:
            texts.append(sentences[0])
            pairs.extend(sentences[1:])
            labels.append(label)
        return cls(texts, as_array(labels), pairs or None)

    def __len__(self) -> int:
        return len(self.texts)

    def content(self) -> bytes:
        return json.dumps([self.texts, self.pairs, self.labels.tolist()]).encode()


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A split as token ids, the examples one after the other.

    Attributes:
        tokens: ids of all examples, [total].
        segments: 0 for the first sentence, 1 for the second, [total].
        offsets: example i is tokens[offsets[i]:offsets[i + 1]], [num_examples + 1].
        labels: target of every example, [num_examples].
        paired: whether there are second sentences at all.
        widths: increasing; an example is padded to the first width that holds it.
    """

    tokens: Int[np.ndarray, "total"]
    segments: Int[np.ndarray, "total"]
    offsets: Int[np.ndarray, "num_offsets"]
    labels: Shaped[np.ndarray, "num_examples"]
    paired: bool
    widths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, "num_examples"]:
        return np.diff(self.offsets)

    @functools.cached_property
    def groups(self) -> Int[np.ndarray, "num_examples"]:
        """Examples padded to the same width: their place in `widths`."""
        groups = np.searchsorted(np.asarray(self.widths), self.lengths)
        if np.any(groups == len(self.widths)):
            raise ValueError(
                f"an example is longer than the largest width, {self.widths[-1]}"
            )
        return groups

    def inputs(self, index: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """Tokens and token_mask [b, n], and segments [b, n] of pairs."""
        place = np.searchsorted(np.asarray(self.widths), self.lengths[index].max())
        tokens, segments, token_mask = self.padded(index, self.widths[int(place)])
        inputs = {"tokens": tokens, "token_mask": token_mask}
        return inputs | {"segments": segments} if self.paired else inputs

    def content(self) -> bytes:
        return b"".join(
            array.tobytes() for array in (self.tokens, self.segments, self.offsets)
        )

    def padded(
        self, index: Int[np.ndarray, "b"], width: int
    ) -> tuple[Int[np.ndarray, "b n"], Int[np.ndarray, "b n"], Bool[np.ndarray, "b n"]]:
        """Tokens, segments and token mask of some examples, padded to `width`."""
        position = np.arange(width)
        token_mask = position < self.lengths[index][:, None]
        where = np.where(token_mask, self.offsets[:-1][index][:, None] + position, 0)
        tokens = np.where(token_mask, self.tokens[where], 0)
        segments = np.where(token_mask, self.segments[where], 0)
        return tokens, segments, token_mask


def encode(
    tokenizer: tokenizers.Tokenizer, records: Sentences, *, widths: Sequence[int]
) -> Encoded:
    """Tokenizes a split, each example cut to the last of `widths`, in tokens.

    Padding is id 0, which BERT's vocabularies reserve for it.
    """
    cut = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    cut.enable_truncation(widths[-1])
    inputs = (
        records.texts
        if records.pairs is None
        else list(zip(records.texts, records.pairs, strict=True))
    )
    encodings = cut.encode_batch_fast(inputs)
    lengths = [len(encoding.ids) for encoding in encodings]
    return Encoded(
        tokens=_concatenate([encoding.ids for encoding in encodings]),
        segments=_concatenate([encoding.type_ids for encoding in encodings]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels=records.labels,
        paired=records.pairs is not None,
        widths=tuple(widths),
    )


def _concatenate(lists: list[list[int]]) -> Int[np.ndarray, "total"]:
    return np.fromiter((i for ids in lists for i in ids), np.int32)
