"""One of several classes, named by words of a vocabulary that the network ranks."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from kd.evaluate.classes import Classes
from kd.types import Batch


@dataclasses.dataclass(frozen=True)
class RankedWords(Classes):
    """Classes, whose logits are those of a word each where the answer begins.

        s'_ic = s_i1[word of class c]

    A network gives logits [b, m, v] for the tokens of the answer, and the batch has
    `label_words` [b, c]. Only the words are kept, [b, c], and judged as `Classes`: as
    each is one token, their order is that of log p(answer), and the probabilities are
    those of the words if there were no others.

    Source: cui2024sinkhorn, whose code ranks answers by their probability.
    """

    keeps_logits = False
    of_tokens = True

    def keep(self, logits: Any, batch: Batch) -> Any:
        return jnp.take_along_axis(logits[:, 0], batch["label_words"], axis=-1)
