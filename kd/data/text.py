"""From sentences to WordPiece ids.

A `WordPiece` says which tokenizer an experiment wants; `build` makes the real one,
from a checkpoint's vocabulary where one is named, else trained on the training
split. The encoded split is two flat arrays, whatever its size.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Bool, Int, Shaped
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import WordPieceTrainer

from kd.atomic import atomic_write
from kd.errors import UserError
from kd.models import hub

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordPiece:
    """The tokenizer of BERT (wu2016wordpiece, devlin2019bert).

    Attributes:
        vocabulary: directory or hub name of a checkpoint with `vocab.txt`; empty
            to train one on the training split.
        size: largest number of entries of a trained vocabulary.
        lowercase: fold case and strip accents.
    """

    vocabulary: str = ""
    size: int = 8192
    lowercase: bool = True

    def build(self, training: Sentences) -> tokenizers.Tokenizer:
        """Loads or trains the tokenizer; the same input gives the same one."""
        if self.vocabulary:
            return load(self.vocabulary, lowercase=self.lowercase)
        return train(
            training.texts + (training.pairs or []),
            size=self.size,
            lowercase=self.lowercase,
        )


def train(texts: list[str], *, size: int, lowercase: bool) -> tokenizers.Tokenizer:
    """Learns a vocabulary of at most `size` entries.

    The library numbers the continuations of words ("##a") in the order of a randomly
    seeded hash table and breaks ties between equally frequent pairs by these numbers,
    so that two trainings differ. Listing all characters first, sorted, fixes both.
    """
    learner = _bert(models.WordPiece(unk_token="[UNK]"), lowercase=lowercase)
    characters = sorted(
        {c for text in texts for c in learner.normalizer.normalize_str(text)} - {" "}
    )
    continuations = [f"##{character}" for character in characters]
    trainer = WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*_SPECIAL_TOKENS, *characters, *continuations],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    # In a tokenizer made anew the characters are ordinary entries.
    vocabulary = learner.get_vocab()
    model = models.WordPiece(vocabulary, unk_token="[UNK]")
    return _with_sentence_template(_bert(model, lowercase=lowercase))


def load(name: str | pathlib.Path, *, lowercase: bool) -> tokenizers.Tokenizer:
    """The tokenizer of a checkpoint, from its `tokenizer.json` or `vocab.txt`.

    Args:
        name: directory or hub name.
        lowercase: for `vocab.txt`, which does not say; `tokenizer.json` does.
    """
    if (description := hub.find_file(name, "tokenizer.json")) is not None:
        tokenizer = tokenizers.Tokenizer.from_file(str(description))
        # Padding and truncation are the pipeline's business, whatever was saved.
        tokenizer.no_padding()
        tokenizer.no_truncation()
    elif (vocabulary := hub.find_file(name, "vocab.txt")) is not None:
        model = models.WordPiece.from_file(str(vocabulary), unk_token="[UNK]")
        tokenizer = _bert(model, lowercase=lowercase)
    else:
        raise UserError(
            f"{name}: no tokenizer there; expected vocab.txt or tokenizer.json"
        )
    missing = [t for t in _SPECIAL_TOKENS[:4] if tokenizer.token_to_id(t) is None]
    if missing:
        raise UserError(f"{name}: the vocabulary lacks {', '.join(missing)}")
    return _with_sentence_template(tokenizer)


def save(tokenizer: tokenizers.Tokenizer, directory: pathlib.Path) -> None:
    """Writes `vocab.txt` and `tokenizer.json` as Hugging Face expects them."""
    directory.mkdir(parents=True, exist_ok=True)
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    with atomic_write(directory / "vocab.txt") as file:
        file.writelines(f"{token}\n" for token, _ in by_id)
    # Last, because `load` goes by it.
    with atomic_write(directory / "tokenizer.json") as file:
        file.write(tokenizer.to_str(pretty=True))


def fingerprint(tokenizer: tokenizers.Tokenizer) -> str:
    """SHA-256 of everything that the tokenizer does."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


def _bert(model: models.WordPiece, *, lowercase: bool) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    # As with the published vocabularies, "[SEP]" in a text means the separator.
    known = [t for t in _SPECIAL_TOKENS if tokenizer.token_to_id(t) is not None]
    tokenizer.add_special_tokens(known)
    return tokenizer


def _with_sentence_template(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    return tokenizer


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

    @property
    def lengths(self) -> Int[np.ndarray, "num_examples"]:
        return np.diff(self.offsets)

    @property
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
