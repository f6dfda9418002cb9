"""A corpus as a network takes it."""

import pathlib
from typing import NamedTuple

import tokenizers

from kd.data import text
from kd.data.sources import Corpus
from kd.data.text import Encoded, WordPiece


class Prepared(NamedTuple):
    """A corpus, its tokenizer, and both splits as token ids."""

    corpus: Corpus
    tokenizer: tokenizers.Tokenizer
    train: Encoded
    dev: Encoded


def prepare(
    corpus: Corpus,
    wanted: WordPiece,
    directory: pathlib.Path,
    *,
    max_length: int,
    adopt: pathlib.Path | None = None,
) -> Prepared:
    """Encodes a corpus with the tokenizer in a directory, put there first if need be.

    Args:
        corpus: the records.
        wanted: the tokenizer to build where the directory has none.
        directory: of the network that the tokenizer belongs to.
        max_length: tokens of the longest example; longer ones are cut.
        adopt: directory of a teacher whose tokenizer to take instead of `wanted`.
    """
    if not (directory / "tokenizer.json").exists():
        made = (
            text.load(adopt, lowercase=wanted.lowercase)
            if adopt
            else wanted.build(corpus.train)
        )
        text.save(made, directory)
    tokenizer = text.load(directory, lowercase=wanted.lowercase)
    return Prepared(
        corpus,
        tokenizer,
        text.encode(tokenizer, corpus.train, max_length=max_length),
        text.encode(tokenizer, corpus.dev, max_length=max_length),
    )
