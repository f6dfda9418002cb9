"""Tasks of sentences and of pairs of sentences, described by where their parts are.

The tasks themselves are in `kd.data.glue` and `kd.data.superglue`;
`kd.data.sources.load` turns one into records.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from kd.data import files, rows, sentiment, text
from kd.data.task import Corpus, Prepared, Task
from kd.data.text import Sentences, WordPiece
from kd.models.bert import Bert
from kd.types import Architecture


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTask(Task[Sentences]):
    """Something asked of sentences or of pairs of sentences.

    Attributes:
        files: names of those of train and dev, in the folder `name`: tab-separated
            (.tsv) or one JSON object a line (.jsonl).
        columns: columns that hold the text: one, or two for pairs. "a+b" joins the
            texts of two with a colon, "a.b" is the key b of the JSON object at a.
        label_column: the column of the target.
        header: names of all columns, where the files do not begin with them.
        tfds_features: TFDS features that hold the text, in the order of `columns`;
            "a+b" as there.
        tfds_label: TFDS feature of the target.
        bundled: the corpus in `kd.data` that stands in where the task cannot be had.
        tokenizer: shared by student and teacher. A teacher given as a directory
            brings its own.
        widths: numbers of tokens that batches are padded to. Longer examples are cut
            to the last.
    """

    tfds_module: ClassVar[str] = "text"

    files: tuple[str, str] = ("train.tsv", "dev.tsv")
    columns: tuple[str, ...]
    label_column: str
    header: tuple[str, ...] = ()
    tfds_features: tuple[str, ...] = ()
    tfds_label: str = "label"
    bundled: Literal["", "sentiment"] = ""
    tokenizer: WordPiece = WordPiece()
    widths: tuple[int, ...] = (8, 16, 32, 64)

    num_texts: ClassVar[tuple[int, ...]] = (1, 2)
    """How many texts an example may have."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.columns) not in self.num_texts or not all(self.columns):
            wanted = " or ".join(map(str, self.num_texts))
            raise ValueError(
                f"columns needs the names of {wanted} columns, got {self.columns}"
            )
        if self.tfds and len(self.tfds_features) != len(self.columns):
            raise ValueError(
                f"tfds_features needs a feature for each of the {len(self.columns)} "
                f"columns, got {self.tfds_features}"
            )
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
        return f"{self.name}/{self.files[0]}"

    def read_local(self, directory: Path) -> tuple[Sentences, Sentences]:
        train, dev = (self._read(directory, name) for name in self.files)
        return train, dev

    def _read(self, directory: Path, file: str) -> Sentences:
        path, content = files.read(directory, self.name, file)
        return self.records(
            rows.parse(
                path,
                content,
                header=self.header,
                columns=self.columns,
                label_column=self.label_column,
                target=self.target,
            )
        )

    def records(self, examples: Iterable[tuple[Sequence[str], Any]]) -> Sentences:
        """Of (texts, target), the texts in the order of `columns`."""
        return Sentences.of(examples, self.target.array)

    def from_tfds(self, rows: Sequence[Mapping[str, Any]]) -> Sentences:
        def one(value: Any) -> str:
            return (value.decode() if isinstance(value, bytes) else value).strip()

        def texts(row: Mapping[str, Any]) -> list[str]:
            return [
                ": ".join(one(row[part]) for part in feature.split("+"))
                for feature in self.tfds_features
            ]

        number = float if not self.target.has_classes else int
        return self.records((texts(row), number(row[self.tfds_label])) for row in rows)

    def bundled_records(self) -> tuple[str, Sentences, Sentences] | None:
        if not self.bundled:
            return None
        train, dev = (
            self.records(([text], label) for text, label in examples)
            for examples in sentiment.corpus()
        )
        return self.bundled, train, dev

    def put_preprocessing(
        self, corpus: Corpus[Sentences], directory: Path, *, adopt: str = ""
    ) -> None:
        if (directory / "tokenizer.json").exists():
            return
        made = (
            text.load(adopt, lowercase=self.tokenizer.lowercase)
            if adopt
            else self.tokenizer.build(corpus.train.texts + (corpus.train.pairs or []))
        )
        text.save(made, directory, max_length=self.widths[-1])

    def encode(self, corpus: Corpus[Sentences], directory: Path) -> Prepared:
        tokenizer = text.load(directory, lowercase=self.tokenizer.lowercase)
        return Prepared(
            corpus,
            text.encode(tokenizer, corpus.train, widths=self.widths),
            text.encode(tokenizer, corpus.dev, widths=self.widths),
            preprocessing=text.fingerprint(tokenizer),
            vocab_size=tokenizer.get_vocab_size(),
            test=None
            if corpus.test is None
            else text.encode(tokenizer, corpus.test, widths=self.widths),
        )

    def preprocessing(self, place: str | Path) -> str:
        return text.fingerprint(text.load(place, lowercase=self.tokenizer.lowercase))

    @property
    def preprocessing_place(self) -> str:
        return self.tokenizer.vocabulary

    def check(self, network: Architecture, name: str) -> None:
        if not isinstance(network, Bert):
            kind = type(network).__name__
            raise ValueError(f"{name} is a {kind}, which does not read text")
        if network.variant == "roberta":
            raise ValueError(
                f"{name} is a RoBERTa, whose padding is token 1; in the vocabularies "
                "that texts are read with here that is another one"
            )
        if self.widths[-1] > network.max_length:
            raise ValueError(
                f"the last of data.widths, {self.widths[-1]}, exceeds "
                f"{name}.max_length, {network.max_length}"
            )
