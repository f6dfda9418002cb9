"""A view of sentences: some of their tokens are another sentence's."""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from kd.views.meaning import only_sentences
from kd.views.mixing import Mixing

if TYPE_CHECKING:
    from kd.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class TokenMix(Mixing):
    """Sentences with a span of another one.

        x'_i = x_i with k_i tokens of x_j(i) for k_i tokens of its own
        k_i = min(round((1 - lambda) m_i), m_j(i))

    where m are the lengths without the first and the last token, [CLS] and [SEP], which
    stay. Both spans lie anywhere, drawn uniformly; lambda_i is then 1 - k_i / m_i. The
    length stays. Of tasks with one sentence an example.

    Source: yoon2021ssmix without its saliency, which needs a gradient and chooses where
    the spans lie. In distillation with augmentation (wang2021understanding,
    wang2022augmentation) there are images only, and "TL" of its TLmixup stands for
    teacher-labelled; its counterpart for text, `Beside(TokenMix())`, is inferred.
    """

    def problem_of(self, experiment: "Experiment") -> str:
        return only_sentences(self, experiment.data)

    def mixture(self, key, share, other, batch):
        tokens = batch["tokens"]
        lengths = jnp.maximum(jnp.sum(batch["token_mask"], axis=1) - 2, 0)
        theirs = lengths[other]
        wanted = jnp.round((1 - share) * lengths).astype(lengths.dtype)
        num = jnp.minimum(wanted, theirs)
        of_ours, of_theirs = (
            jax.random.uniform(key, lengths.shape) for key in jax.random.split(key)
        )
        # Below the number of places even where the product is rounded up.
        first = jnp.minimum(of_ours * (lengths - num + 1), lengths - num)
        source = jnp.minimum(of_theirs * (theirs - num + 1), theirs - num)
        first, source = (1 + x.astype(lengths.dtype) for x in (first, source))
        offset = jnp.arange(tokens.shape[1]) - first[:, None]
        inside = (offset >= 0) & (offset < num[:, None])
        place = jnp.clip(source[:, None] + offset, 0, tokens.shape[1] - 1)
        spans = jnp.take_along_axis(tokens[other], place, axis=1)
        own = 1 - num / jnp.maximum(lengths, 1)
        mixed = jnp.where(inside, spans, tokens)
        return {"tokens": mixed}, own.astype(share.dtype)
