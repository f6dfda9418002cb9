"""Tasks of sources and texts to be written about them: text to text.

The same batches serve encoder-decoders and decoders: sources, and targets apart from
them. A decoder reads both in one row and learns the target alone. The tasks themselves
are in the modules that read their files.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import tokenizers
from jaxtyping import Int

from kd.data import byte_bpe, text, unigram
from kd.data.byte_bpe import ByteBPE
from kd.data.pairs import EncodedPairs, Pairs
from kd.data.prompts import Prompts
from kd.data.task import Corpus, Prepared, Split, Task
from kd.errors import UserError
from kd.evaluate.target import Target
from kd.evaluate.written import WrittenText
from kd.models import saved
from kd.models.after_sources import after_sources
from kd.models.gpt2 import GPT2
from kd.models.llama import Llama
from kd.models.special_tokens import SpecialTokens
from kd.types import Architecture, ComputeDtype, Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class WritingTask(Task[Pairs]):
    """A text to be written about a source.

    Attributes:
        tokenizer: shared by student and teacher, and by sources and targets. A teacher,
            or a start, given as a directory brings its own.
        source_format: how a source is put to the network, which reads it in place of
            {}: a decoder goes on after it.
        target_format: likewise a text to be written; a decoder's begins with a space.
        widths: numbers of tokens that sources are padded to, and
        target_widths: that texts are, their end included; as many. An example goes to
            the first place where both fit.
        too_long: what becomes of a source beyond the last of `widths`, or of a text
            beyond the last of `target_widths`: "refuse", or "cut", a source in its
            middle and a text at its end. How many are is told. Texts are judged by
            whole references in any case.
        dev_examples: that dev and test have at most, from all over them; 0 for all.
        num_beams: that texts are searched with when they are judged; 1 for the
            likeliest token each time.
    """

    tfds_module: ClassVar[str] = "text"
    ends: ClassVar[bool] = True
    """Whether a target has an end, which is learnt."""

    target: Target = WrittenText()
    tokenizer: ByteBPE = ByteBPE()
    source_format: str = "{}"
    target_format: str = "{}"
    widths: tuple[int, ...] = (32, 64)
    target_widths: tuple[int, ...] = (32, 64)
    too_long: Literal["refuse", "cut"] = "refuse"
    dev_examples: int = 0
    num_beams: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("source_format", "target_format"):
            if getattr(self, name).count("{}") != 1:
                raise ValueError(
                    f"{name} needs one {{}} for the text, got {getattr(self, name)!r}"
                )
        for name in ("widths", "target_widths"):
            values = getattr(self, name)
            if not values or list(values) != sorted(values) or values[0] < 1:
                raise ValueError(f"{name} must be positive, increasing, got {values}")
        if len(self.widths) != len(self.target_widths):
            raise ValueError(
                f"target_widths must be as many as widths, {len(self.widths)}, got "
                f"{self.target_widths}"
            )
        for name, least in (("num_beams", 1), ("dev_examples", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} must be at least {least}, got {getattr(self, name)}"
                )

    @property
    def labels(self) -> tuple[str, ...]:
        """None: a network's outputs are its tokens."""
        return ()

    def check_installed(self) -> None:
        if isinstance(self.target, WrittenText):
            self.target.check_installed()

    def put_preprocessing(
        self, corpus: Corpus[Pairs], directory: Path, *, adopt: str = ""
    ) -> None:
        if (directory / "tokenizer.json").exists():
            return
        place = adopt or self.tokenizer.vocabulary
        tokenizer = load(place) if place else self.tokenizer.build(self._texts(corpus))
        end = byte_bpe.end_token(tokenizer, place) if place else 0
        # Both kinds are written alike, but for a token to pad with.
        kind = unigram if place and unigram.is_in(place) else byte_bpe
        kind.save(
            tokenizer, directory, end=tokenizer.id_to_token(end),
            max_length=self.widths[-1],
        )  # fmt: skip

    def _texts(self, corpus: Corpus[Pairs]) -> list[str]:
        train = corpus.train
        sources = [self.source_format.format(source) for source in train.sources]
        return sources + [self.target_format.format(own[0]) for own in train.references]

    def encode(self, corpus: Corpus[Pairs], directory: Path) -> Prepared:
        tokenizer = load(directory)
        notices: list[str] = []
        splits = {"train": corpus.train, "dev": corpus.dev, "test": corpus.test}
        found = {
            name: self._encoded(name, records, tokenizer, directory, notices)
            for name, records in splits.items()
            if records is not None
        }
        return Prepared(
            corpus,
            found["train"],
            found["dev"],
            preprocessing=text.fingerprint(tokenizer),
            vocab_size=byte_bpe.num_ids(tokenizer),
            test=found.get("test"),
            notices=tuple(notices),
            end=found["train"].end,
        )

    def _encoded(
        self,
        name: str,
        records: Pairs,
        tokenizer: tokenizers.Tokenizer,
        directory: Path,
        notices: list[str],
    ) -> EncodedPairs:
        if name != "train" and 0 < self.dev_examples < len(records):
            # From all over the split: files come in an order.
            kept = np.linspace(0, len(records) - 1, self.dev_examples).astype(int)
            records = Pairs(
                [records.sources[i] for i in kept],
                [records.references[i] for i in kept],
                records.labels[kept],
            )
        words = self.words(tokenizer)
        end = byte_bpe.end_token(tokenizer, directory)
        sources = [self.source_format.format(source) for source in records.sources]
        texts = [self.target_format.format(own[0]) for own in records.references]
        bytes_of = byte_bpe.bytes_of_tokens(tokenizer)
        bytes_of[end] = 0

        def fitting(
            what: str,
            setting: str,
            ids: list[np.ndarray],
            most: int,
            cut: Callable[[np.ndarray, int], np.ndarray],
        ) -> list[np.ndarray]:
            lengths = np.array([len(one) for one in ids])
            too_long = int((lengths > most).sum())
            if not too_long:
                return ids
            many = (
                f"{self.name}, {name}: {too_long:,} of {len(ids):,} {what} have more "
                f"than {most} tokens, up to {lengths.max():,}"
            )
            if self.too_long == "refuse":
                raise UserError(
                    f"{many}; data.{setting} makes room for them, data.too_long=cut "
                    "cuts them"
                )
            notices.append(f"{many}: cut")
            return [cut(one, most) for one in ids]

        return EncodedPairs(
            fitting(
                "sources",
                "widths",
                _sources(tokenizer, sources),
                self.widths[-1],
                _without_middle,
            ),
            fitting(
                "texts",
                "target_widths",
                _targets(tokenizer, texts, end if self.ends else None),
                self.target_widths[-1],
                lambda ids, most: ids[:most],
            ),
            records,
            self.widths,
            self.target_widths,
            bytes_of,
            tokenizer,
            (end,),
            self.num_beams,
            words,
        )

    @property
    def trains_together(self) -> bool:
        # Beside a wider batch of another seed dropout would draw something else, and
        # what is written would have more room.
        return len(self.widths) == 1

    def words(self, tokenizer: tokenizers.Tokenizer) -> tuple[int, ...]:
        """The token of each label word; none where texts are free."""
        del tokenizer
        return ()

    def preprocessing(self, place: str | Path) -> str:
        return text.fingerprint(load(place))

    @property
    def preprocessing_place(self) -> str:
        return self.tokenizer.vocabulary

    def special_tokens(self, directory: Path) -> SpecialTokens:
        tokenizer = load(directory)
        end = byte_bpe.end_token(tokenizer, directory)
        # Byte-level vocabularies have no token for it.
        padding = tokenizer.token_to_id("<pad>")
        return SpecialTokens(end=(end,), padding=end if padding is None else padding)

    def prompts(self, split: Split, directory: Path, num: int) -> Prompts | None:
        del directory
        assert isinstance(split, EncodedPairs)
        index = np.unique(np.linspace(0, len(split) - 1, num).astype(int))
        return split.prompts(index) if self.target.writes else None

    def build(
        self,
        network: Architecture,
        *,
        vocab_size: int = 0,
        compute_dtype: ComputeDtype = "float32",
    ) -> Model:
        """The network with a logit for every token, asked about targets alone."""
        # pyrefly: ignore
        model = network.build(vocab_size or None, compute_dtype=compute_dtype)
        return after_sources(model) if isinstance(network, GPT2 | Llama) else model

    def check(self, network: Architecture, name: str) -> None:
        if type(network) not in saved.LANGUAGE_MODELS:
            kind = type(network).__name__
            known = ", ".join(known.__name__ for known in saved.LANGUAGE_MODELS)
            raise ValueError(f"{name} is a {kind}, which does not write; {known} do")
        longest = getattr(network, "max_length", None)
        both = isinstance(network, GPT2 | Llama)
        parts = self.widths[-1], self.target_widths[-1]
        wanted = sum(parts) if both else max(parts)
        if longest is not None and wanted > longest:
            raise ValueError(
                f"the last of data.widths, {parts[0]}, {'and' if both else 'or'} "
                f"of data.target_widths, {parts[1]}, exceed {name}.max_length, "
                f"{longest}"
            )


def load(place: str | Path) -> tokenizers.Tokenizer:
    """The tokenizer of a network that writes: byte-level BPE, or unigram."""
    return (unigram if unigram.is_in(place) else byte_bpe).load(place)


def _sources(
    tokenizer: tokenizers.Tokenizer, texts: list[str]
) -> list[Int[np.ndarray, "_"]]:
    """Ids of sources, begun and ended as the tokenizer does."""
    plain = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    plain.encode_special_tokens = True
    return [np.asarray(one.ids, np.int32) for one in plain.encode_batch_fast(texts)]


def _without_middle(ids: Int[np.ndarray, "_"], most: int) -> Int[np.ndarray, "_"]:
    """The beginning and the end of a source, where the question often stands."""
    if len(ids) <= most:
        return ids
    return np.concatenate([ids[: most // 2], ids[len(ids) - (most - most // 2) :]])


def _targets(
    tokenizer: tokenizers.Tokenizer, texts: list[str], end: int | None
) -> list[Int[np.ndarray, "_"]]:
    """Ids of texts, ended as the tokenizer does, or with the end if it is given."""
    if end is not None and tokenizer.encode("").ids[-1:] == [end]:
        return _sources(tokenizer, texts)
    last = [] if end is None else [end]
    return [
        np.concatenate([ids, last]).astype(np.int32)
        for ids in byte_bpe.encode(tokenizer, texts)
    ]
