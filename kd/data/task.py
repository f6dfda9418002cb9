"""What a task is: what its examples are, where they come from, and what is asked.

One subclass of `Task` for each kind of example: sentences (`kd.data.glue`), images
(`kd.data.images`), rows of a table (`kd.data.tables`). What is predicted of an example,
and how that is judged, is the task's `Target` (`kd.evaluate`). On their way to a
network examples are `Records` as they were read, then `Split`s that batches are made
of.
"""

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    runtime_checkable,
)

import numpy as np
from jaxtyping import Int, Shaped

from kd.data.prompts import Prompts
from kd.data.sample import Sampled
from kd.evaluate.target import Target
from kd.models.bert_checkpoint import Head
from kd.models.special_tokens import NO_SPECIAL_TOKENS, SpecialTokens
from kd.types import Architecture, ComputeDtype, Model


@runtime_checkable
class Records(Protocol):
    """The examples of one split as they were read, in order."""

    @property
    def labels(self) -> Shaped[np.ndarray, "n"]:
        """Targets: classes int32 in [0, v), numbers float32, or what text is asked."""
        ...

    def __len__(self) -> int: ...

    def content(self) -> bytes:
        """Everything there is, for a fingerprint."""
        ...


R = TypeVar("R", bound=Records)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Corpus(Generic[R]):
    """A task's records, and where they came from."""

    train: R
    dev: R
    """What training is watched on, and settings are chosen by."""
    test: R | None = None
    """What the final network is scored on, once; None where dev serves for that too."""
    source: Literal["local", "tfds", "bundled"]
    name: str
    """Of the data at its source, such as "TFDS glue/sst2 2.0.0"."""
    directory: str = ""
    """Where the files lie on this machine; no part of `origin`."""
    notice: str = ""
    """Why another source than the first choice was taken."""

    @property
    def origin(self) -> str:
        """One line, the same on every machine."""
        test = "" if self.test is None else f", {len(self.test):,} test"
        return f"{self.name} ({len(self.train):,} train, {len(self.dev):,} dev{test})"

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of inputs and labels, in order, as 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for records in (self.train, self.dev, self.test):
            digest.update(b"" if records is None else records.content())
        return digest.hexdigest()


@runtime_checkable
class Split(Protocol):
    """The examples of one split as a network takes them."""

    @property
    def labels(self) -> Shaped[np.ndarray, "num_examples ..."]:
        """Targets, as in the records, or the tokens of these."""
        ...

    def __len__(self) -> int: ...

    @property
    def groups(self) -> Int[np.ndarray, "num_examples"]:
        """Examples of one group are of one shape, and may share a batch.

        Inputs of a smaller one, filled up with zeros, are the same to the network.
        """
        ...

    def inputs(self, index: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """What the network reads of some examples of one group, each [b, ...]."""
        ...

    def content(self) -> bytes:
        """All that the network may read, for a fingerprint."""
        ...


def judged(split: Split) -> Shaped[np.ndarray, "num_examples ..."]:
    """What a network's answers about a split are judged by.

    Its `references` where it has them, since what is learnt there is something else,
    such as the tokens of a text; else its labels.
    """
    return getattr(split, "references", split.labels)


class Prepared(NamedTuple):
    """A corpus as a network takes it."""

    corpus: Corpus[Any]
    train: Split
    dev: Split
    preprocessing: str
    """Fingerprint of what turned the records into inputs."""
    vocab_size: int = 0
    """Token ids that there are; 0 where examples are no text."""
    test: Split | None = None
    end: tuple[int, ...] = ()
    """Token ids that end a text; none where no text is written."""
    notices: tuple[str, ...] = ()
    """What a person should know of it, such as how many texts were cut."""

    @property
    def final(self) -> Split:
        """What the final networks are scored on: test, or dev where there is none."""
        return self.dev if self.test is None else self.test

    @property
    def final_name(self) -> str:
        """Of the split: "test" or "dev"."""
        return "dev" if self.test is None else "test"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Sampled, abc.ABC, Generic[R]):
    """What is to be learnt, and from how much; a record that can be written as JSON.

    What turns records into inputs (a tokenizer, a normalization) belongs to the
    network and lies in the same directory.
    """

    tfds_module: ClassVar[str]
    """The part of TFDS that knows the data set."""
    num_views: ClassVar[int] = 1
    """Of every example: with two, a batch holds "others" [b, ...] beside "inputs"."""

    name: str
    """As the field writes it; also the task's folder in the official layout."""
    target: Target
    """What is predicted, and how it is judged."""
    tfds: str = ""
    """The data set's name in TFDS; empty where it is not in TFDS."""
    tfds_splits: tuple[str, str] = ("train", "validation")
    url: str = ""
    """What TFDS downloads: asked first whether it answers, since TFDS itself takes
    minutes to find out that it does not."""
    source: Literal["auto", "local", "tfds", "bundled"] = "auto"
    """Where to load from. "auto": `directory` if it is given, else TFDS, else, if
    TFDS fails, the bundled corpus where there is one."""
    directory: str = ""
    """A folder in the official layout, with the folder `name` in it (DATA_DIR)."""

    def __post_init__(self) -> None:
        self.check_sample(self.target)

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each output."""
        return self.target.labels

    @property
    def trains_together(self) -> bool:
        """Whether seeds may train in one program, each as it would alone."""
        return True

    @property
    def head(self) -> Head:
        """What transformers calls the outputs of a BERT."""
        return "SequenceClassification"

    def build(
        self,
        network: Architecture,
        *,
        vocab_size: int = 0,
        compute_dtype: ComputeDtype = "float32",
    ) -> Model:
        """The network with as many outputs as the task asks for.

        Args:
            network: its sizes.
            vocab_size: see `Prepared`; as many are the outputs of a task that writes.
            compute_dtype: of its activations.
        """
        del vocab_size
        return network.build(self.target.num_outputs, compute_dtype=compute_dtype)

    @property
    @abc.abstractmethod
    def local_file(self) -> str:
        """A file of the official layout, to say what is expected where."""

    @abc.abstractmethod
    def read_local(self, directory: Path) -> tuple[R, ...]:
        """The splits in the files in a folder: to train on, then to judge by.

        Two, or what else `divide` takes.

        Raises:
            UserError: a file is missing or not what it should be.
        """

    def divide(
        self, train: R, judged: R, test: R | None = None
    ) -> tuple[R, R, R | None]:
        """Train, dev and test, of the two or three splits that a source has.

        Raises:
            UserError: there are too few examples for that.
        """
        return train, judged, test

    def from_tfds(self, rows: Sequence[Mapping[str, Any]]) -> R:
        """Records of the rows of a split in TFDS."""
        raise NotImplementedError(f"{self.name} is not in TFDS")

    def bundled_records(self) -> tuple[str, R, R] | None:
        """Name, train and dev of a corpus in `kd.data` that stands in, if any."""
        return None

    def prepare(
        self, corpus: Corpus[R], directory: Path, *, adopt: str = ""
    ) -> Prepared:
        """Makes network inputs of a corpus: `put_preprocessing`, then `encode`."""
        self.put_preprocessing(corpus, directory, adopt=adopt)
        return self.encode(corpus, directory)

    @abc.abstractmethod
    def put_preprocessing(
        self, corpus: Corpus[R], directory: Path, *, adopt: str = ""
    ) -> None:
        """Puts what turns records into inputs where it is not yet.

        Args:
            corpus: the records, of which it is made.
            directory: of the network.
            adopt: directory or hub name of a trained network from which to take it
                instead of making it.
        """

    @abc.abstractmethod
    def encode(self, corpus: Corpus[R], directory: Path) -> Prepared:
        """Makes network inputs of a corpus.

        A function of this task, the corpus and the `preprocessing` in the directory.

        Args:
            corpus: the records.
            directory: of a network, which says what turns records into inputs.
        """

    @abc.abstractmethod
    def preprocessing(self, place: str | Path) -> str:
        """Fingerprint of what turns records into inputs, in a network's place.

        Args:
            place: directory or hub name.

        Raises:
            UserError: there is no such thing.
        """

    def check_installed(self) -> None:
        """Raises UserError where what answers are judged by is not installed."""

    @property
    def preprocessing_place(self) -> str:
        """Where what turns records into inputs lies; empty where it is made of them."""
        return ""

    def prompts(self, split: Split, directory: Path, num: int) -> Prompts | None:
        """Some of a split to write after; None where nothing is written.

        Args:
            split: as `encode` made it.
            directory: of a network, with what turns records into inputs.
            num: as many at most.
        """
        del split, directory, num
        return None

    def special_tokens(self, directory: Path) -> SpecialTokens:
        """Where texts begin and end in the vocabulary of the network in a directory."""
        del directory
        return NO_SPECIAL_TOKENS

    def check(self, network: Architecture, name: str) -> None:
        """Raises ValueError if the network called `name` cannot read the examples."""
        del network, name
