"""Classification by a language model: the answer is one of a few words.

A question of `kd.data.sentences` is put as text, and the network's next token ranks the
words that name the classes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tokenizers

from kd.data import byte_bpe
from kd.data.glue import RTE
from kd.data.pairs import Pairs
from kd.data.sentences import TextTask
from kd.data.superglue import BOOLQ, CB, COPA, WIC, WSC
from kd.data.text import Sentences
from kd.data.writing import WritingTask
from kd.errors import UserError
from kd.evaluate.classes import Classes
from kd.evaluate.ranked import RankedWords


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordsTask(WritingTask):
    """A question about sentences, answered by one word.

    Attributes:
        of: the task that is put as text.
        template: of the source, {0} and {1} being the sentences.
        words: of the classes, in their order; each is one token.
    """

    ends: ClassVar[bool] = False

    of: TextTask
    template: str
    words_of_classes: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        num = len(self.of.target.labels)
        if len(self.words_of_classes) != num:
            raise ValueError(
                f"words_of_classes needs a word for each of the {num} classes of "
                f"{self.of.name}, got {self.words_of_classes}"
            )
        try:
            self.template.format(*(["x"] * len(self.of.columns)))
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(
                f"template takes {len(self.of.columns)} texts, as {{0}}, {{1}}; got "
                f"{self.template!r:.80}"
            ) from error

    @property
    def local_file(self) -> str:
        return self.of.local_file

    def read_local(self, directory: Path) -> tuple[Pairs, ...]:
        return tuple(map(self._put, self.of.read_local(directory)))

    def from_tfds(self, rows: Sequence[Mapping[str, Any]]) -> Pairs:
        return self._put(self.of.from_tfds(rows))

    def _put(self, sentences: Sentences) -> Pairs:
        pairs = sentences.pairs
        texts = zip(sentences.texts, *([pairs] if pairs else []), strict=True)
        words = [(self.words_of_classes[label],) for label in sentences.labels]
        asked = [self.template.format(*own) for own in texts]
        return Pairs.of([*zip(asked, words, strict=True)], sentences.labels)

    def words(self, tokenizer: tokenizers.Tokenizer) -> tuple[int, ...]:
        texts = [self.target_format.format(word) for word in self.words_of_classes]
        found = byte_bpe.encode(tokenizer, texts)
        for text, ids in zip(texts, found, strict=True):
            if len(ids) != 1:
                raise UserError(
                    f"{self.name}: the label word {text!r} is {len(ids)} tokens of the "
                    "vocabulary; choose words that are one (data.words_of_classes)"
                )
        ids = tuple(int(one[0]) for one in found)
        if len(set(ids)) < len(ids):
            raise UserError(f"{self.name}: two label words are one token: {texts}")
        return ids


def as_words(task: TextTask, template: str, words: tuple[str, ...]) -> WordsTask:
    """A task put as text.

    Args:
        task: of classes.
        template: see `WordsTask`.
        words: of the classes.
    """
    target = task.target
    assert isinstance(target, Classes)
    return WordsTask(
        name=task.name,
        of=task,
        template=template,
        words_of_classes=words,
        target=RankedWords(target.labels, target.official, target.written),
        target_format=" {}",
        target_widths=(1, 1),
        tfds=task.tfds,
        tfds_splits=task.tfds_splits,
        url=task.url,
    )


CB_WORDS = as_words(
    CB,
    'Suppose that {0} Can we infer that "{1}"? Yes, No, or Maybe? Answer:',
    ("Yes", "No", "Maybe"),
)
"""Entailment is Yes, contradiction No, neutral Maybe. The templates are our own, like
those of bach2022promptsource, which cui2024sinkhorn takes."""

RTE_WORDS = as_words(
    RTE, '{0} Question: "{1}" True or False? Answer:', ("True", "False")
)
WIC_WORDS = as_words(
    WIC, "{0} / {1} Does the word mean the same? No or Yes? Answer:", ("No", "Yes")
)
WSC_WORDS = as_words(
    WSC, "{0} Question: is it so that {1}? No or Yes? Answer:", ("No", "Yes")
)
"""The pronoun and the noun come as "pronoun: noun"."""

BOOLQ_WORDS = as_words(BOOLQ, "{1} Question: {0}? No or Yes? Answer:", ("No", "Yes"))

COPA_WORDS = as_words(
    TextTask(
        name=COPA.name,
        target=COPA.target,
        files=COPA.files,
        columns=("question+premise", "choice1+choice2"),
        label_column=COPA.label_column,
        tfds=COPA.tfds,
        tfds_features=("question+premise", "choice1+choice2"),
        url=COPA.url,
    ),
    "{0} Of these, {1} Is it the first or the second? Answer:",
    ("first", "second"),
)
"""The choices come as "one: other", after the question and the premise."""
