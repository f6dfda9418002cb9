"""Language modelling: texts cut into rows of tokens, each to be predicted.

A corpus is documents. In front of the first and after each stands the token that ends a
text, and the whole is cut into rows of equal length, so that every token of every text
is predicted once and there is no padding but at the end of the last row. A row does not
know of documents but by that token: it sees what stands before it in the row.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tokenizers
from jaxtyping import Int

from kd.data import byte_bpe, files, text
from kd.data.byte_bpe import ByteBPE
from kd.data.packed import Packed, Texts
from kd.data.prompts import Prompts
from kd.data.task import Corpus, Prepared, Split, Task
from kd.errors import UserError
from kd.evaluate.target import Target
from kd.evaluate.tokens import Tokens
from kd.models.generate import Sample
from kd.models.gpt2 import GPT2
from kd.models.llama import Llama
from kd.models.special_tokens import SpecialTokens
from kd.types import Architecture, ComputeDtype, Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageTask(Task[Texts]):
    """The next token, everywhere in texts.

    Attributes:
        files: of train and, if there are, of dev and test, in the folder `name`. Of one
            file the last part is dev; with two the second is test and dev the last part
            of the first.
        begins: what the first line of a document looks like, a regular expression;
            empty where a file is one document.
        dev_share: of the characters of train that become dev where dev has no file:
            whole documents at its end, or the end of an only one.
        tokenizer: shared by student and teacher. A teacher, or a start, given as a
            directory brings its own.
        length: tokens of a row.
        dev_rows: rows that dev and test have at most; 0 for all.
    """

    tfds_module: ClassVar[str] = "text"

    target: Target = Tokens()
    files: tuple[str, ...]
    begins: str = ""
    dev_share: float = 0.1
    tokenizer: ByteBPE = ByteBPE()
    length: int = 256
    dev_rows: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.files) <= 3:
            raise ValueError(f"files needs one to three names, got {self.files}")
        if self.length < 2:
            raise ValueError(f"length must be at least 2, got {self.length}")
        if self.dev_rows < 0:
            raise ValueError(f"dev_rows must not be negative, got {self.dev_rows}")
        if not 0 < self.dev_share < 1:
            raise ValueError(f"dev_share must lie in (0, 1), got {self.dev_share}")
        try:
            re.compile(self.begins)
        except re.error as error:
            raise ValueError(f"begins is no regular expression: {error}") from error

    @property
    def local_file(self) -> str:
        return f"{self.name}/{self.files[0]}"

    def read_local(self, directory: Path) -> tuple[Texts, ...]:
        return tuple(self._read(directory, file) for file in self.files)

    def _read(self, directory: Path, file: str) -> Texts:
        path, content = files.read(directory, self.name, file)
        try:
            whole = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise UserError(f"{path}:{line}: not UTF-8 ({error.reason})") from error
        if not whole.strip():
            raise UserError(f"{path}: there is no text")
        return Texts(_documents(whole, self.begins))

    def divide(
        self, train: Texts, judged: Texts | None = None, test: Texts | None = None
    ) -> tuple[Texts, Texts, Texts | None]:
        if judged is not None and test is not None:
            return train, judged, test
        ours, dev = _without_end(train.documents, self.dev_share)
        if not ours or not dev:
            raise UserError(
                f"{self.name}: {len(train):,} documents are too few for train and dev"
            )
        return Texts(ours), Texts(dev), judged

    def put_preprocessing(
        self, corpus: Corpus[Texts], directory: Path, *, adopt: str = ""
    ) -> None:
        if (directory / "tokenizer.json").exists():
            return
        place = adopt or self.tokenizer.vocabulary
        tokenizer = (
            byte_bpe.load(place)
            if place
            else self.tokenizer.build(corpus.train.documents)
        )
        end = byte_bpe.end_token(tokenizer, place) if place else 0
        byte_bpe.save(
            tokenizer,
            directory,
            end=tokenizer.id_to_token(end),
            max_length=self.length,
        )

    def encode(self, corpus: Corpus[Texts], directory: Path) -> Prepared:
        tokenizer = byte_bpe.load(directory)
        end = byte_bpe.end_token(tokenizer, directory)
        bytes_of = byte_bpe.bytes_of_tokens(tokenizer)
        bytes_of[end] = 0

        def packed(texts: Texts, most: int) -> Packed:
            stream = _stream(tokenizer, texts.documents, end)
            num_rows = -(-(len(stream) - 1) // self.length)
            num_rows = min(num_rows, most) if most else num_rows
            return Packed(stream, bytes_of, self.length, num_rows)

        return Prepared(
            corpus,
            packed(corpus.train, 0),
            packed(corpus.dev, self.dev_rows),
            preprocessing=text.fingerprint(tokenizer),
            vocab_size=byte_bpe.num_ids(tokenizer),
            test=None if corpus.test is None else packed(corpus.test, self.dev_rows),
        )

    def preprocessing(self, place: str | Path) -> str:
        return text.fingerprint(byte_bpe.load(place))

    @property
    def preprocessing_place(self) -> str:
        return self.tokenizer.vocabulary

    def prompts(self, split: Split, directory: Path, num: int) -> Prompts:
        """Beginnings of rows, and a while of what follows."""
        tokenizer = byte_bpe.load(directory)
        end = byte_bpe.end_token(tokenizer, directory)
        # The last row may be short.
        index = np.unique(np.linspace(0, max(len(split) - 2, 0), num).astype(int))
        rows = split.inputs(index)
        width = max(min(self.length // 4, 32), 1)
        num_tokens = min(self.length - width, 48)

        def decode(ids: Sequence[int]) -> str:
            return tokenizer.decode([*ids], skip_special_tokens=False)

        tokens = rows["tokens"][:, :width]
        following = rows["labels"][:, width - 1 : width - 1 + num_tokens]
        return Prompts(
            tokens=tokens,
            token_mask=rows["token_mask"][:, :width],
            shown=[decode(ids) for ids in tokens.tolist()],
            references=[decode([i for i in x if i >= 0]) for x in following.tolist()],
            decode=decode,
            num_tokens=num_tokens,
            end=(end,),
            how=Sample(top_p=0.9),
        )

    def special_tokens(self, directory: Path) -> SpecialTokens:
        end = byte_bpe.end_token(byte_bpe.load(directory), directory)
        return SpecialTokens(end=(end,), padding=end)

    def build(
        self,
        network: Architecture,
        *,
        vocab_size: int = 0,
        compute_dtype: ComputeDtype = "float32",
    ) -> Model:
        """The network with a logit for every token that there is."""
        # pyrefly: ignore
        return network.build(vocab_size or None, compute_dtype=compute_dtype)

    def check(self, network: Architecture, name: str) -> None:
        check_decoder(network, name)
        longest = network.max_length  # pyrefly: ignore
        if self.length > longest:
            raise ValueError(
                f"data.length, {self.length}, exceeds {name}.max_length, {longest}"
            )


def check_decoder(network: Architecture, name: str) -> None:
    """Raises ValueError if the network called `name` does not write on after texts."""
    if not isinstance(network, GPT2 | Llama):
        kind = type(network).__name__
        raise ValueError(
            f"{name} is a {kind}, which does not write on after texts; expected a GPT2 "
            "or a Llama"
        )


def _documents(whole: str, begins: str) -> list[str]:
    """A text cut before every line that begins a document; nothing is lost."""
    if not begins:
        return [whole]
    starts = [m.start() for m in re.finditer(begins, whole, re.MULTILINE)]
    # What stands before the first goes with it.
    cuts = [0, *starts[1:], len(whole)]
    return [whole[a:b] for a, b in itertools.pairwise(cuts)]


def _without_end(documents: list[str], share: float) -> tuple[list[str], list[str]]:
    """Documents, and those at the end that hold a share of the characters."""
    if len(documents) == 1:
        (whole,) = documents
        # After a line, unless there is none.
        cut = whole.find("\n", int((1 - share) * len(whole))) + 1
        cut = cut if 0 < cut < len(whole) else int((1 - share) * len(whole))
        return [part for part in [whole[:cut]] if part], [whole[cut:]]
    before = np.cumsum([len(document) for document in documents])
    first = int(np.searchsorted(before, (1 - share) * before[-1]))
    first = min(max(first, 1), len(documents) - 1)
    return documents[:first], documents[first:]


def _stream(
    tokenizer: tokenizers.Tokenizer, documents: list[str], end: int
) -> Int[np.ndarray, "total"]:
    parts: list[Any] = [[end]]
    for ids in byte_bpe.encode(tokenizer, documents):
        parts += [ids, [end]]
    return np.concatenate(parts).astype(np.int32)


WIKITEXT2 = LanguageTask(
    name="wikitext-2",
    files=("train.txt", "valid.txt", "test.txt"),
    begins="^ = [^=].* = ?$",
)
"""Good articles of Wikipedia, with rare words as <unk>: 2 M words, 0.2 M of dev.

Perplexities are per token of the vocabulary here; published ones are mostly per word.
Source: merity2017pointer.
"""

WIKITEXT2_HELD_OUT = dataclasses.replace(WIKITEXT2, files=("valid.txt", "test.txt"))
"""The same without its training split, which not everybody has: one learns from the
articles of valid but the last tenth, which is dev; test is test."""

TINY_SHAKESPEARE = LanguageTask(name="tinyshakespeare", files=("input.txt",))
"""A million characters of Shakespeare in one file, the last tenth for dev.

Source: karpathy2015charrnn.
"""

BOOKS = LanguageTask(
    name="books",
    files=("train.txt", "valid.txt", "test.txt"),
    begins="^# Title:",
)
"""48 English books of 1719 to 1906, in Markdown: 6 M words, two books of dev.

The authors of dev and test are not in train. The split is no published one.
"""
