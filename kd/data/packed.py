"""Documents, and the rows of tokens that they are packed into."""

import dataclasses
import functools
import json

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True, eq=False)
class Texts:
    """The documents of one split, in order."""

    documents: list[str]

    @property
    def labels(self) -> Int[np.ndarray, "n"]:
        """Nothing is asked of a document as a whole."""
        return np.zeros(len(self), np.int32)

    def __len__(self) -> int:
        return len(self.documents)

    def content(self) -> bytes:
        return json.dumps(self.documents).encode()


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """A split as rows of tokens.

    Attributes:
        stream: an end, then each document and an end, [1 + num_predictions].
        bytes_of: how many bytes of text each token of the vocabulary is, [v].
        length: tokens of a row.
        num_rows: as many as hold all of the stream, or fewer of them.
    """

    stream: Int[np.ndarray, "total"]
    bytes_of: Int[np.ndarray, "v"]
    length: int
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    @functools.cached_property
    def labels(self) -> Int[np.ndarray, "num_rows length"]:
        """The token after each; -1 where there is none."""
        return self._rows(self.stream[1:])

    @functools.cached_property
    def _tokens(self) -> Int[np.ndarray, "num_rows length"]:
        return np.maximum(self._rows(self.stream[:-1]), 0)

    def _rows(self, tokens: Int[np.ndarray, "total"]) -> Int[np.ndarray, "rows length"]:
        size = self.num_rows * self.length
        whole = np.full(size, -1, np.int32)
        whole[: len(tokens)] = tokens[:size]
        return whole.reshape(self.num_rows, self.length)

    @property
    def groups(self) -> Int[np.ndarray, "num_rows"]:
        return np.zeros(len(self), np.int32)

    def inputs(self, index: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """Of every row, [b, length] each.

        tokens, token_mask; labels, the next tokens; prediction_mask, True where there
        is one; num_bytes, of the next tokens, 0 where they are no text.
        """
        labels = self.labels[index]
        there = labels >= 0
        return {
            "tokens": self._tokens[index],
            "token_mask": there,
            "labels": labels,
            "prediction_mask": there,
            "num_bytes": np.where(there, self.bytes_of[labels], 0).astype(np.int32),
        }

    def content(self) -> bytes:
        return self.stream.tobytes() + f"{self.length} {self.num_rows}".encode()
