"""Losses on a few words of the vocabulary: classification by a language model."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from kd.errors import UserError
from kd.objective import Wrapper
from kd.types import Batch, Metrics, Outputs, Params


@dataclasses.dataclass(frozen=True)
class LabelWords(Wrapper):
    """Another loss, on the logits of given tokens as if there were no others.

        s'_ic = s_i[token_ids[c]],   t' likewise
        losses = loss(s', t')

    Where the answer is one of a few words ("Yes", "No") the rest of the vocabulary
    says nothing about the class. The softmax of the loss then runs over the words
    alone. Logits are [..., v] before and [..., c] after, so that in a sequence model
    it stands inside or outside of `PerToken` alike; which positions hold an answer
    is for `batch["prediction_mask"]` to say.

    `batch["labels"]`, which some losses read, are tokens of the student: position c
    in `token_ids` takes the place of token_ids[c]. Others are out of range, and have
    to be masked.

    Args:
        loss: what compares the words.
        token_ids: a token of the student's vocabulary for every class, all different;
            None for those that come with the batch, `batch["label_words"]` [b, c], the
            same in every row.
        teacher_token_ids: of the same classes in the teacher's vocabulary, if that is
            another.

    Raises:
        ValueError: the tokens are none, not different or negative, not as many for
            the teacher; or, when called, beyond the vocabulary.

    Source: cui2024sinkhorn, whose encoder-decoder code has it, for two words, in
    lines that are commented out.
    """

    token_ids: tuple[int, ...] | None = None
    teacher_token_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.token_ids is not None:
            _check("token_ids", self.token_ids)
        if self.teacher_token_ids is not None:
            _check("teacher_token_ids", self.teacher_token_ids)
            num = 0 if self.token_ids is None else len(self.token_ids)
            if len(self.teacher_token_ids) != num:
                raise ValueError(
                    f"{num} token_ids need as many "
                    f"teacher_token_ids, got {len(self.teacher_token_ids)}"
                )
        super().__post_init__()

    @property
    def tail_temperature(self) -> None:
        """Words are classes by themselves."""
        return None

    def init(
        self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None
    ) -> Params:
        if self.token_ids is None:
            return self.loss.init(key, student, teacher)
        of_words = functools.partial(self._of_words, token_ids=self.token_ids)
        return self.loss.init(key, *jax.eval_shape(of_words, student, teacher))

    def per_example_with_metrics(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[Float[Array, "b"], Metrics]:
        if self.token_ids is None:
            if "label_words" not in batch:
                raise UserError(
                    f"LabelWords of {self.loss.name} has no token_ids, and the task no "
                    "label words; a WordsTask such as CB_WORDS has some"
                )
            token_ids = batch["label_words"][0]
        else:
            token_ids = self.token_ids
        if "labels" in batch:
            words = jnp.asarray(token_ids)
            is_word = batch["labels"][..., None] == words
            classes = jnp.where(
                is_word.any(axis=-1), jnp.argmax(is_word, axis=-1), len(words)
            )
            batch = {**batch, "labels": classes.astype(batch["labels"].dtype)}
        return self.loss.per_example_with_metrics(
            params, *self._of_words(student, teacher, token_ids), batch
        )

    def _of_words(self, student, teacher, token_ids):
        teacher_ids = token_ids
        if self.teacher_token_ids is not None:
            teacher_ids = self.teacher_token_ids
        return (
            _select(student, token_ids, "student"),
            teacher and _select(teacher, teacher_ids, "teacher"),
        )


def _select(outputs: Outputs, token_ids: Any, whose: str) -> Outputs:
    size = outputs.logits.shape[-1]
    if isinstance(token_ids, tuple) and max(token_ids) >= size:
        raise ValueError(
            f"token {max(token_ids)} is beyond the {whose}'s vocabulary of {size}"
        )
    return outputs._replace(logits=outputs.logits[..., jnp.asarray(token_ids)])


def _check(name: str, token_ids: tuple[int, ...]) -> None:
    different = len(set(token_ids)) == len(token_ids)
    if not token_ids or not different or min(token_ids) < 0:
        raise ValueError(
            f"{name} are different numbers from 0 on, at least one, got {token_ids}"
        )
