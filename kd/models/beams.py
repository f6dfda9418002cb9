"""Beam search, all texts of a batch at once, with static shapes."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from kd.errors import UserError
from kd.models.sample import Sample
from kd.types import Cache, Decoder, Params

_NEVER = -1e9
"""Of what cannot be chosen; finite, so that nothing becomes NaN."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beams:
    """Of several texts that are written at once, the one of the highest score.

        score(y) = log p(y | prompt) / |y|^length_penalty

    where |y| counts the end.

    Args:
        num_beams: texts that are gone on with.
        length_penalty: 0 for the likeliest text, which tends to be short; larger for
            longer ones.
        sample: if given, what is gone on with is drawn: of all continuations of all
            beams, without replacement, each in proportion to its probability as
            `sample` changes it; which is then also the p of the score.

    Source: the search that transformers' `generate` makes, with its `early_stopping`
        of False: it stops when the best text that is not ended would not do better
        than the worst one kept if it ended at once, which the score of a longer text
        may, where `length_penalty` is positive. With `sample` its `do_sample` with
        beams, where a temperature multiplies log-probabilities that are not scaled to
        sum 1 again.
    """

    num_beams: int = 4
    length_penalty: float = 1.0
    sample: Sample | None = None

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise ValueError(f"num_beams is {self.num_beams}, must be at least 1")


class _Texts(NamedTuple):
    """Several texts after each prompt, the best first."""

    tokens: Int[Array, "b k m"]
    log_probs: Float[Array, "b k m"]
    length: Int[Array, "b k"]
    score: Float[Array, "b k"]
    """Of texts that go on, the sum of their `log_probs`."""
    ended: Bool[Array, "b k"]

    def best(self, k: int) -> tuple["_Texts", Int[Array, "b k"]]:
        """The k of the highest score, and their places."""
        _, places = jax.lax.top_k(self.score, k)
        return self.at(places), places

    def at(self, places: Int[Array, "b j"]) -> "_Texts":
        return _Texts(*(_take(x, places) for x in self))


class _State(NamedTuple):
    written: Int[Array, ""]
    cache: Cache
    running: _Texts
    finished: _Texts
    improvable: Bool[Array, "b"]
    """Whether a better text may still be found."""


@functools.partial(jax.jit, static_argnames=("decoder", "how", "num_tokens", "end"))
def search(
    decoder: Decoder,
    params: Params,
    batch: dict[str, Any],
    keys: Key[Array, "b"],
    how: Beams,
    num_tokens: int,
    end: tuple[int, ...],
) -> tuple[Int[Array, "b m"], Bool[Array, "b m"], Float[Array, "b m"]]:
    """The best text after each prompt; see `kd.models.generate.generate`.

    Returns:
        Its tokens, where there is one, and the log-probability of each.
    """
    k = how.num_beams
    # As many candidates as leave k that do not end, whichever do.
    num_candidates = max(2, 1 + len(end)) * k

    def candidates_of(
        i: Int[Array, ""], running: _Texts, log_probs: Float[Array, "b k v"]
    ) -> tuple[Float[Array, "b c"], Int[Array, "b c"]]:
        """The continuations that are looked at, the likeliest first."""
        if how.sample is None:
            sums = _flat(running.score[..., None] + log_probs)
            score, places = jax.lax.top_k(sums, num_candidates)
            return score, places
        cut = how.sample.cut(log_probs.reshape(-1, log_probs.shape[-1]))
        sums = _flat(running.score[..., None] + cut.reshape(log_probs.shape))
        # The largest of sums with Gumbel noise are drawn without replacement.
        drawn_with = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, sums.shape[1:]))(drawn_with)
        _, places = jax.lax.top_k(sums + noise, num_candidates)
        score, order = jax.lax.top_k(_take(sums, places), num_candidates)
        return score, _take(places, order)

    def extend(state: _State, logits: Float[Array, "b k v"]) -> _State:
        i, running, finished = state.written, state.running, state.finished
        log_probs = jax.nn.log_softmax(logits)
        score, places = candidates_of(i, running, log_probs)
        beam, token = places // logits.shape[-1], places % logits.shape[-1]
        token = token.astype(jnp.int32)
        own = jnp.take_along_axis(_flat(log_probs), places, axis=1)
        candidates = running.at(beam)
        ends = jnp.isin(token, jnp.array(end, jnp.int32)) | (i + 1 == num_tokens)
        candidates = _Texts(
            candidates.tokens.at[..., i].set(token),
            candidates.log_probs.at[..., i].set(own),
            candidates.length + 1,
            score,
            ends,
        )
        going = candidates._replace(score=jnp.where(ends, score + _NEVER, score))
        running, chosen = going.best(k)
        # Only the first k may end: the others are there to have enough to go on with.
        may_end = ends & (jnp.arange(num_candidates) < k) & state.improvable[:, None]
        per_length = score / (i + 1.0) ** how.length_penalty
        ending = candidates._replace(
            score=jnp.where(may_end, per_length, _NEVER), ended=may_end
        )
        both = (jnp.concatenate(x, 1) for x in zip(finished, ending, strict=True))
        finished, _ = _Texts(*both).best(k)
        rows = jnp.arange(len(beam))[:, None] * k + _take(beam, chosen)
        best = running.score[:, 0] / (i + 1.0) ** how.length_penalty
        worst = jnp.where(finished.ended, finished.score.min(1, keepdims=True), _NEVER)
        return _State(
            i + 1,
            jax.tree.map(lambda x: x[rows.reshape(-1)], state.cache),
            running,
            finished,
            state.improvable & jnp.any(best[:, None] > worst, axis=1),
        )

    def goes_on(state: _State) -> Bool[Array, ""]:
        return (state.written < num_tokens) & jnp.any(state.improvable)

    def go_on(state: _State) -> _State:
        last = state.running.tokens[..., state.written - 1].reshape(-1)
        logits, cache = decoder.step(params, state.cache, last)
        logits = logits.reshape(-1, k, logits.shape[-1])
        return extend(state._replace(cache=cache), logits)

    logits, cache = decoder.start(params, batch, num_tokens)
    b, v = logits.shape
    if num_candidates > k * v:
        raise UserError(
            f"{k} beams over {v} tokens with {len(end)} ends need {num_candidates} "
            f"candidates, and there are {k * v}"
        )
    nothing = _Texts(
        jnp.zeros((b, k, num_tokens), jnp.int32),
        jnp.zeros((b, k, num_tokens)),
        jnp.zeros((b, k), jnp.int32),
        jnp.full((b, k), _NEVER),
        jnp.zeros((b, k), bool),
    )
    # All beams are the same prompt: only one of them is looked at.
    only = nothing._replace(score=nothing.score.at[:, 0].set(0.0))
    cache = jax.tree.map(lambda x: jnp.repeat(x, k, axis=0), cache)
    state = _State(jnp.array(0), cache, only, nothing, jnp.ones(b, bool))
    state = extend(state, jnp.repeat(logits[:, None], k, axis=1))
    found = jax.lax.while_loop(goes_on, go_on, state).finished
    token_mask = jnp.arange(num_tokens) < found.length[:, :1]
    return (
        jnp.where(token_mask, found.tokens[:, 0], 0),
        token_mask,
        jnp.where(token_mask, found.log_probs[:, 0], 0.0),
    )


def _flat(x: Float[Array, "b k v"]) -> Float[Array, "b kv"]:
    return x.reshape(len(x), -1)


def _take(x: Array, places: Int[Array, "b j"]) -> Array:
    """Those of the second axis that are in the places."""
    return jnp.take_along_axis(
        x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), axis=1
    )
