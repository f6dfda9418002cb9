"""Examples that are arrays of one shape: images, or rows of a table."""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Shaped

from kd.atomic import atomic_write
from kd.data.task import Corpus, Prepared
from kd.errors import UserError
from kd.models import hub

FILE = "normalization.json"
"""Of a network's directory: what its inputs were shifted and scaled by."""


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """The examples of one split, in order."""

    inputs: Shaped[np.ndarray, "n ..."]
    """Images [n, h, w, c] of bytes, or tables [n, d] of float32."""
    labels: Shaped[np.ndarray, "n"]
    """Targets: classes int32 in [0, v), or numbers float32."""

    def __len__(self) -> int:
        return len(self.labels)

    def held_out(self, share: float) -> Bool[np.ndarray, "n"]:
        """A share of the examples, about, by what they are.

        An example is one of them if the SHA-256 of its inputs, as a fraction of all
        there are, is below the share. So they are the same on every machine, whatever
        the order of the examples, and equal ones are never on both sides.
        """

        def fraction(inputs: np.ndarray) -> float:
            if inputs.dtype == np.float32:
                # -0 and 0 are equal: adding 0 makes them the same bytes.
                inputs = (inputs + np.float32(0)).astype("<f4")
            digest = hashlib.sha256(inputs.tobytes()).digest()
            return int.from_bytes(digest[:8], "big") / 2**64

        return np.array([fraction(inputs) < share for inputs in self.inputs], bool)

    def where(self, chosen: Bool[np.ndarray, "n"]) -> "Arrays":
        """Some of them, in order."""
        return Arrays(self.inputs[chosen], self.labels[chosen])

    def content(self) -> bytes:
        shape = f"{self.inputs.shape} {self.inputs.dtype}".encode()
        return shape + self.inputs.tobytes() + self.labels.tobytes()


@dataclasses.dataclass(frozen=True, eq=False)
class Normalization:
    """Makes every channel of an image, or column of a table, of mean 0 and variance 1.

        x -> (x - mean) / std

    Mean and standard deviation are those of the training split; where nothing varies,
    std is 1.
    """

    mean: Float64[np.ndarray, "c"]
    std: Float64[np.ndarray, "c"]

    @classmethod
    def of(cls, inputs: Shaped[np.ndarray, "n ... c"]) -> "Normalization":
        """That of the given examples."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        mean = rows.mean(axis=0, dtype=np.float64)
        # In parts, as the squares of all pixels take eight times their memory.
        parts = np.array_split(rows, len(rows) // 100_000 + 1)
        squares = sum(np.square(part - mean).sum(axis=0) for part in parts)
        std = np.sqrt(squares / len(rows))
        return cls(mean, np.where(std > 0, std, 1.0))

    def __call__(
        self, inputs: Shaped[np.ndarray, "n ... c"]
    ) -> Float32[np.ndarray, "n ... c"]:
        # In single precision, as batches are made while others are computed on.
        centred = inputs.astype(np.float32) - self.mean.astype(np.float32)
        return centred * (1 / self.std).astype(np.float32)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.mean.tobytes() + self.std.tobytes()).hexdigest()

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"mean": self.mean.tolist(), "std": self.std.tolist()})
        with atomic_write(directory / FILE) as file:
            file.write(text + "\n")

    @classmethod
    def load(cls, place: str | Path) -> "Normalization":
        """What `save` wrote, exactly, in a directory or on the hub.

        Raises:
            UserError: there is none, or it is damaged.
        """
        path = hub.find_file(place, FILE)
        if path is None:
            raise UserError(f"{place} has no {FILE}")
        found = hub.read_object(path)
        try:
            mean, std = (np.array(found[k], np.float64) for k in ("mean", "std"))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{path}: expected {{"mean": [...], "std": [...]}} ({error!r})'
            ) from error
        if mean.ndim != 1 or mean.shape != std.shape or not np.all(std > 0):
            raise UserError(
                f"{path}: expected as many positive std as mean, one for each channel"
            )
        return cls(mean, std)


@dataclasses.dataclass(frozen=True, eq=False)
class Normalized:
    """A split as a network takes it."""

    arrays: Arrays
    normalization: Normalization

    def __len__(self) -> int:
        return len(self.arrays)

    @property
    def labels(self) -> Shaped[np.ndarray, "num_examples"]:
        return self.arrays.labels

    @functools.cached_property
    def groups(self) -> Int[np.ndarray, "num_examples"]:
        """All examples are of one shape."""
        return np.zeros(len(self), np.int32)

    def inputs(self, index: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """inputs [b, ...] float32."""
        return {"inputs": self.normalization(self.arrays.inputs[index])}

    def content(self) -> bytes:
        return self.normalization.fingerprint.encode() + self.arrays.content()


def put_normalization(
    corpus: Corpus[Arrays], directory: Path, *, adopt: str = ""
) -> None:
    """See `Task.put_preprocessing`."""
    if (directory / FILE).exists():
        return
    made = Normalization.load(adopt) if adopt else Normalization.of(corpus.train.inputs)
    made.save(directory)


def normalized(corpus: Corpus[Arrays], directory: Path) -> Prepared:
    """Normalizes a corpus, see `Task.encode`."""
    normalization = Normalization.load(directory)
    channels = corpus.train.inputs.shape[-1]
    if len(normalization.mean) != channels:
        raise UserError(
            f"{directory / FILE} is for {len(normalization.mean)} channels or columns, "
            f"the data have {channels}"
        )
    return Prepared(
        corpus,
        Normalized(corpus.train, normalization),
        Normalized(corpus.dev, normalization),
        preprocessing=normalization.fingerprint,
        test=None if corpus.test is None else Normalized(corpus.test, normalization),
    )


def preprocessing(place: str | Path) -> str:
    """See `Task.preprocessing`."""
    return Normalization.load(place).fingerprint
