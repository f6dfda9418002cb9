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
    corpus: Corpus, wanted: WordPiece, directory: pathlib.Path, *, max_length: int
) -> Prepared:
    """Encodes a corpus with the tokenizer in a directory, made first if it isn't there.

    Args:
        corpus: the records.
        wanted: the tokenizer to build where the directory has none.
        directory: of the network that the tokenizer belongs to.
        max_length: tokens of the longest example; longer ones are cut.
    """
    if (directory / "tokenizer.json").exists():
        tokenizer = text.load(directory, lowercase=wanted.lowercase)
    else:
        tokenizer = wanted.build(corpus.train)
        directory.mkdir(parents=True, exist_ok=True)
        text.save(tokenizer, directory)
    return Prepared(
        corpus,
        tokenizer,
        text.encode(tokenizer, corpus.train, max_length=max_length),
        text.encode(tokenizer, corpus.dev, max_length=max_length),
    )
