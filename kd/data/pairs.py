"""Sources and texts about them, as they were read and as token ids."""

import dataclasses
import functools
import json
from collections.abc import Sequence

import numpy as np
import tokenizers
from jaxtyping import Int

from kd.data.prompts import Prompts
from kd.evaluate.written import BETWEEN, references
from kd.models.beams import Beams
from kd.models.generate import Greedy


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Sources with texts that may be written about them."""

    sources: list[str]
    references: list[tuple[str, ...]]
    """Of every source, at least one; the first is what is learnt."""
    labels: Int[np.ndarray, "n"]
    """Classes that the references name; 0 where they name none."""

    @classmethod
    def of(
        cls,
        pairs: Sequence[tuple[str, Sequence[str]]],
        labels: np.ndarray | None = None,
    ) -> "Pairs":
        """Records of (source, references), white space in them being one space."""
        none = np.zeros(len(pairs), np.int32)
        return cls(
            [_tidy(source) for source, _ in pairs],
            [tuple(map(_tidy, texts)) for _, texts in pairs],
            none if labels is None else labels,
        )

    def __len__(self) -> int:
        return len(self.sources)

    def content(self) -> bytes:
        return json.dumps(
            [self.sources, self.references, self.labels.tolist()]
        ).encode()


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedPairs:
    """A split as token ids.

    Attributes:
        sources: of every source, its ids.
        targets: of its first reference, with an end if the task has texts end.
        records: what they were made of.
        widths: that sources are padded to, and
        target_widths: that their targets are: both to the first place where both fit.
        bytes_of: how many bytes of text each token is, [v].
        tokenizer: reads what is written.
        end: ids that end a text.
        num_beams: that texts are searched with; 1 for the likeliest tokens.
        words: of a task of label words the token of each, [c]; else none.
        target: says what answers are judged by.
    """

    sources: list[Int[np.ndarray, "_"]]
    targets: list[Int[np.ndarray, "_"]]
    records: Pairs
    widths: tuple[int, ...]
    target_widths: tuple[int, ...]
    bytes_of: Int[np.ndarray, "v"]
    tokenizer: tokenizers.Tokenizer
    end: tuple[int, ...]
    num_beams: int = 1
    words: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.sources)

    @functools.cached_property
    def labels(self) -> Int[np.ndarray, "num_examples m"]:
        """The target tokens; -1 where there is none."""
        return _padded(self.targets, self.target_widths[int(self.groups.max())], -1)

    @functools.cached_property
    def references(self) -> np.ndarray:
        """What answers are judged by: see `kd.evaluate.written`, or classes."""
        if self.words:
            return self.records.labels
        return references(self.labels, self.records.references)

    @functools.cached_property
    def groups(self) -> Int[np.ndarray, "num_examples"]:
        """Examples that are padded alike: their place in `widths`."""
        places = [
            np.searchsorted(np.asarray(widths), [len(ids) for ids in lists])
            for lists, widths in (
                (self.sources, self.widths),
                (self.targets, self.target_widths),
            )
        ]
        return np.maximum(*places)

    def inputs(self, index: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """tokens, token_mask [b, n] of sources; of targets, [b, m], the others.

        target_tokens and target_mask; labels, the same with -1 where there is none;
        prediction_mask; num_bytes. Of label words, label_words [b, c].
        """
        width = self.target_widths[int(self.groups[index].max())]
        labels = self.labels[index][:, :width]
        there = labels >= 0
        num_bytes = np.where(there, self.bytes_of[labels], 0).astype(np.int32)
        found = self._sources(index) | {
            "target_tokens": np.maximum(labels, 0),
            "target_mask": there,
            "labels": labels,
            "prediction_mask": there,
            "num_bytes": num_bytes,
        }
        if self.words:
            found["label_words"] = np.tile(
                np.array(self.words, np.int32), (len(index), 1)
            )
        return found

    def _sources(self, index: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        width = self.widths[int(self.groups[index].max())]
        tokens = _padded([self.sources[i] for i in index], width, -1)
        return {"tokens": np.maximum(tokens, 0), "token_mask": tokens >= 0}

    def prompts(self, index: Int[np.ndarray, "k"]) -> Prompts:
        """Sources to write about."""
        records = self.records
        rows = self._sources(index)
        return Prompts(
            tokens=rows["tokens"],
            token_mask=rows["token_mask"],
            shown=[records.sources[i] for i in index],
            references=[BETWEEN.join(records.references[i]) for i in index],
            decode=self.decode,
            num_tokens=self.target_widths[-1],
            end=self.end,
            how=Beams(num_beams=self.num_beams) if self.num_beams > 1 else Greedy(),
        )

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens."""
        return _tidy(self.tokenizer.decode([*ids], skip_special_tokens=True))

    def content(self) -> bytes:
        everything = [ids.tolist() for ids in (*self.sources, *self.targets)]
        settings = [self.widths, self.target_widths, self.words]
        return json.dumps([everything, settings]).encode()


def _padded(
    lists: Sequence[Int[np.ndarray, "_"]], width: int, fill: int
) -> Int[np.ndarray, "rows width"]:
    whole = np.full((len(lists), width), fill, np.int32)
    for row, ids in zip(whole, lists, strict=True):
        row[: len(ids)] = ids
    return whole


def _tidy(line: str) -> str:
    return " ".join(line.split())
