"""Text classification tasks, described by where their parts are found.

One constant per task. The task files are those of the GLUE download
(gluebenchmark.com), the TFDS names those of `tensorflow_datasets.text.glue`.
`kd.data.sources.load` turns a task into records.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from kd.data import files, sentiment, text, tsv
from kd.data.task import Corpus, Prepared, Task
from kd.data.text import Sentences, WordPiece
from kd.models.bert import Bert
from kd.types import Architecture


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTask(Task[Sentences]):
    """A classification of sentences or of pairs of sentences.

    Attributes:
        columns: TSV columns that hold the text: one, or two for pairs.
        label_column: the TSV column of the class, as its name or number.
        header: names of all columns, where the files do not begin with them.
        tfds_features: TFDS features that hold the text, in the order of `columns`.
        bundled: the corpus in `kd.data` that stands in where the task cannot be had.
        tokenizer: shared by student and teacher. A teacher given as a directory
            brings its own.
        widths: numbers of tokens that batches are padded to. Longer examples are cut
            to the last.
    """

    tfds_module: ClassVar[str] = "text"

    columns: tuple[str, ...]
    label_column: str
    header: tuple[str, ...] = ()
    tfds_features: tuple[str, ...]
    bundled: Literal["", "sentiment"] = ""
    tokenizer: WordPiece = WordPiece()
    widths: tuple[int, ...] = (8, 16, 32, 64)

    def __post_init__(self) -> None:
        if not self.widths:
            raise ValueError("widths needs at least one number of tokens")
        if list(self.widths) != sorted(set(self.widths)):
            raise ValueError(f"widths must be increasing, got {self.widths}")
        if self.widths[0] < 3:
            raise ValueError(
                f"widths must hold [CLS], a token and [SEP], got {self.widths[0]}"
            )

    @property
    def local_file(self) -> str:
        return f"{self.name}/train.tsv"

    def read_local(self, directory: Path) -> tuple[Sentences, Sentences]:
        def split(name: str) -> Sentences:
            path, content = files.read(directory, self.name, f"{name}.tsv")
            return Sentences.of(
                tsv.parse(
                    path,
                    content,
                    header=self.header,
                    columns=self.columns,
                    label_column=self.label_column,
                    labels=self.labels,
                )
            )

        return split("train"), split("dev")

    def from_tfds(self, rows: Sequence[Mapping[str, Any]]) -> Sentences:
        def texts(row: Mapping[str, Any]) -> list[str]:
            values = (row[feature] for feature in self.tfds_features)
            return [
                (text.decode() if isinstance(text, bytes) else text).strip()
                for text in values
            ]

        return Sentences.of((texts(row), int(row["label"])) for row in rows)

    def bundled_records(self) -> tuple[str, Sentences, Sentences] | None:
        if not self.bundled:
            return None
        train, dev = (
            Sentences.of(([text], label) for text, label in examples)
            for examples in sentiment.corpus()
        )
        return self.bundled, train, dev

    def prepare(
        self, corpus: Corpus[Sentences], directory: Path, *, adopt: Path | None = None
    ) -> Prepared:
        lowercase = self.tokenizer.lowercase
        if not (directory / "tokenizer.json").exists():
            made = (
                text.load(adopt, lowercase=lowercase)
                if adopt
                else self.tokenizer.build(corpus.train)
            )
            text.save(made, directory)
        tokenizer = text.load(directory, lowercase=lowercase)
        return Prepared(
            corpus,
            text.encode(tokenizer, corpus.train, widths=self.widths),
            text.encode(tokenizer, corpus.dev, widths=self.widths),
            preprocessing=text.fingerprint(tokenizer),
            vocab_size=tokenizer.get_vocab_size(),
        )

    def preprocessing(self, directory: Path) -> str:
        return text.fingerprint(
            text.load(directory, lowercase=self.tokenizer.lowercase)
        )

    def check(self, network: Architecture, name: str) -> None:
        if not isinstance(network, Bert):
            kind = type(network).__name__
            raise ValueError(f"{name} is a {kind}, which does not read text")
        if self.widths[-1] > network.max_length:
            raise ValueError(
                f"the last of data.widths, {self.widths[-1]}, exceeds "
                f"{name}.max_length, {network.max_length}"
            )


SST2 = TextTask(
    name="SST-2",
    labels=("negative", "positive"),
    columns=("sentence",),
    label_column="label",
    tfds="glue/sst2",
    tfds_features=("sentence",),
    url="https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",
    bundled="sentiment",
)
"""Film reviews as negative or positive: 67,349 phrases, 872 dev sentences.

Source: socher2013recursive, as split by wang2019glue; scored by accuracy.
"""

COLA = TextTask(
    name="CoLA",
    labels=("unacceptable", "acceptable"),
    header=("source", "label", "mark", "sentence"),
    columns=("sentence",),
    label_column="label",
    tfds="glue/cola",
    tfds_features=("sentence",),
    url="https://dl.fbaipublicfiles.com/glue/data/CoLA.zip",
)
"""Whether a sentence is acceptable English: 8,551 sentences, 1,043 of dev.

Of dev 69 % are acceptable. 16 dev sentences also occur in train, as published.

Source: warstadt2019neural, as split by wang2019glue; scored by Matthews correlation.
"""
