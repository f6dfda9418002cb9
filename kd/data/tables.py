"""Tasks of rows of a table; one constant per task."""

import csv
import dataclasses
import math
from pathlib import Path
from typing import ClassVar

import numpy as np

from kd.data import arrays, files
from kd.data.arrays import Arrays
from kd.data.files import quoted
from kd.data.task import Corpus, Prepared, Task
from kd.errors import UserError
from kd.evaluate.classes import Classes
from kd.models.mlp import MLP
from kd.types import Architecture


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableTask(Task[Arrays]):
    """Something asked of the rows of one CSV file with a header, which has no splits.

    Which rows are of dev is decided by a hash of each, see `Arrays.held_out`.

    Batches hold "inputs" [b, d] float32, of mean 0 and variance 1 in each column over
    the training split.

    Attributes:
        file: name of the file, in the folder `name`.
        label_column: name of the column of the target.
        ignored: names of columns that are no features; all others are.
        dev_share: share of the rows that are of dev, about.
    """

    tfds_module: ClassVar[str] = ""

    file: str
    label_column: str = "label"
    ignored: tuple[str, ...] = ()
    dev_share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.dev_share < 1:
            raise ValueError(f"dev_share must be between 0 and 1, got {self.dev_share}")

    @property
    def local_file(self) -> str:
        return f"{self.name}/{self.file}"

    def read_local(self, directory: Path) -> tuple[Arrays, Arrays]:
        path, content = files.read(directory, self.name, self.file)
        examples = Arrays(*self._parse(path, content))
        is_dev = examples.held_out(self.dev_share)
        for name, members in (("train", ~is_dev), ("dev", is_dev)):
            if not members.any():
                raise UserError(
                    f"{path}: of its {len(examples)} rows none falls to {name}; it "
                    "needs more rows"
                )
        return examples.where(~is_dev), examples.where(is_dev)

    def _parse(self, path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
        lines = files.lines_of(path, content)
        if len(lines) < 2:
            raise UserError(
                f"{path}: no examples; expected a header and then one per line"
            )
        reader = csv.reader(lines)
        try:
            header, *rows = reader
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: {error}") from error
        missing = {self.label_column, *self.ignored} - set(header)
        if missing:
            raise UserError(
                f"{path}:1: the header lacks {quoted(sorted(missing))}; it has "
                f"{quoted(header)}"
            )
        left_out = {self.label_column, *self.ignored}
        if len(left_out) == len(set(header)):
            raise UserError(
                f"{path}:1: no column is left for features; the header has "
                f"{quoted(header)}"
            )
        places = [i for i, column in enumerate(header) if column not in left_out]
        label_place = header.index(self.label_column)
        numbers = np.empty((len(rows), len(places)), np.float32)
        labels: list[int | float] = []
        for i, row in enumerate(rows):
            where = f"{path}:{i + 2}"
            if len(row) != len(header):
                raise UserError(
                    f"{where}: {len(row)} fields; expected {len(header)}, "
                    f"{quoted(header)}"
                )
            try:
                labels.append(self.target.parse(row[label_place]))
            except ValueError as error:
                raise UserError(f"{where}: {error}") from error
            for column, place in enumerate(places):
                number = _number(row[place])
                if not math.isfinite(number):
                    raise UserError(
                        f"{where}: {header[place]} is {quoted([row[place]])}; expected "
                        "a finite number"
                    )
                numbers[i, column] = number
        return numbers, self.target.array(labels)

    def put_preprocessing(
        self, corpus: Corpus[Arrays], directory: Path, *, adopt: str = ""
    ) -> None:
        arrays.put_normalization(corpus, directory, adopt=adopt)

    def encode(self, corpus: Corpus[Arrays], directory: Path) -> Prepared:
        return arrays.normalized(corpus, directory)

    def preprocessing(self, place: str | Path) -> str:
        return arrays.preprocessing(place)

    def check(self, network: Architecture, name: str) -> None:
        if not isinstance(network, MLP):
            kind = type(network).__name__
            raise ValueError(f"{name} is a {kind}, which does not read tables")


_LARGEST = float(np.finfo(np.float32).max)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if abs(number) <= _LARGEST else math.inf


_GENRES = (
    "blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop",
    "reggae", "rock",
)  # fmt: skip

GTZAN = TableTask(
    name="gtzan-features",
    file="features_30_sec.csv",
    ignored=("filename", "length"),
    target=Classes(_GENRES),
)
"""57 features of the sound of 1,000 clips of 30 s, ten genres of music.

Means and variances of chroma, spectrum, tempo and MFCC, as published with the "GTZAN
Dataset - Music Genre Classification" on Kaggle. There is no official split. This one
keeps the 14 exact duplicates, one of which is in two genres, on the side of what they
repeat. But it knows nothing of artists, and many have several clips: accuracies are
higher than on unheard artists (sturm2013gtzan), and comparable only among runs on this
split.

Source: tzanetakis2002musical; scored by accuracy.
"""

GTZAN_CLIPS = dataclasses.replace(
    GTZAN,
    label_column="filename",
    ignored=("label", "length"),
    target=Classes(
        tuple(f"{genre}.{i:05d}.wav" for genre in _GENRES for i in range(100))
    ),
)
"""The same rows and features, each its own class: to tell clips apart, not genres.

What a network makes of them is an embedding learnt without labels (instance
discrimination, dosovitskiy2014discriminative, without augmentation). Clips of dev are
none of those it learns, so that its accuracy there is 0.
"""
