"""Text written by a network, token by token, with a cache and static shapes.

Any `Model` with a `decoder` writes: one that goes on after prompts, or an
encoder-decoder, which writes something else about sources. A row's text depends on its
prompt and its key only, not on the batch that it was in.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from kd.errors import UserError
from kd.models import beams
from kd.models.beams import Beams
from kd.models.sample import Sample
from kd.types import Batch, Decoder, Model, Params


@dataclasses.dataclass(frozen=True)
class Greedy:
    """Every token is the most likely one."""


class Written(NamedTuple):
    """What was written after each prompt, or about each source."""

    tokens: Int[Array, "b m"]
    """The last one is an end, unless there was no room for it; 0 after it."""
    token_mask: Bool[Array, "b m"]
    """True where `tokens` has one."""
    log_probs: Float[Array, "b m"]
    """Of each token under the network as it is, at temperature 1 and with nothing cut;
    in nats, 0 where there is no token."""


def generate(
    model: Model,
    params: Params,
    batch: Batch,
    key: Key[Array, "..."],
    how: Greedy | Sample | Beams = Greedy(),
    *,
    num_tokens: int,
    end: tuple[int, ...] = (),
) -> Written:
    """Continues prompts, or answers sources; compiled for each shape and setting.

    Args:
        model: the network; the same object again, or all is compiled again.
        params: its parameters.
        batch: prompts, or sources of an encoder-decoder, `tokens` and `token_mask`
            [b, n], padded on either side; each has at least one real token.
        key: of what is drawn: one for each row, [b]; or one key, of which row i gets
            `jax.random.fold_in(key, i)`. Token j of a row, or of its beams, is drawn
            with `fold_in(its key, j)`.
        how: tokens are chosen.
        num_tokens: m, the most that are written.
        end: tokens that end a text.

    Raises:
        UserError: the network does not write, or has not positions enough.
    """
    if model.decoder is None:
        raise UserError("this network does not write: it is no language model")
    inputs = dict(batch)
    keys = key
    if key.ndim == 0:
        rows = jnp.arange(len(batch["tokens"]))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    if isinstance(how, Beams):
        return Written(
            *beams.search(model.decoder, params, inputs, keys, how, num_tokens, end)
        )
    return _one_by_one(model.decoder, params, inputs, keys, how, num_tokens, end)


@functools.partial(jax.jit, static_argnames=("decoder", "how", "num_tokens", "end"))
def _one_by_one(
    decoder: Decoder,
    params: Params,
    batch: dict[str, Any],
    keys: Key[Array, "b"],
    how: Greedy | Sample,
    num_tokens: int,
    end: tuple[int, ...],
) -> Written:
    def write(i, logits, written, done):
        if isinstance(how, Greedy):
            token = jnp.argmax(logits, axis=-1)
        else:
            drawn_with = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
            token = jax.vmap(jax.random.categorical)(drawn_with, how.cut(logits))
        log_probs = jnp.take_along_axis(
            jax.nn.log_softmax(logits), token[:, None], axis=-1
        )[:, 0]
        token = jnp.where(done, 0, token).astype(jnp.int32)
        written = Written(
            written.tokens.at[:, i].set(token),
            written.token_mask.at[:, i].set(~done),
            written.log_probs.at[:, i].set(jnp.where(done, 0.0, log_probs)),
        )
        return token, written, done | jnp.isin(token, jnp.array(end, jnp.int32))

    def goes_on(state):
        i, _, _, _, done = state
        return (i < num_tokens) & ~jnp.all(done)

    def go_on(state):
        i, cache, token, written, done = state
        logits, cache = decoder.step(params, cache, token)
        return i + 1, cache, *write(i, logits, written, done)

    logits, cache = decoder.start(params, batch, num_tokens)
    shape = (len(logits), num_tokens)
    nothing = Written(
        jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape)
    )
    first = write(0, logits, nothing, jnp.zeros(len(logits), bool))
    return jax.lax.while_loop(goes_on, go_on, (1, cache, *first))[3]


def join(batch: Batch, written: Written) -> dict[str, Array]:
    """Prompts with what was written after them, as a batch of texts.

    Returns:
        `tokens` and `token_mask` [b, n + m], padded on the right, and `written`,
        True where a token was written.
    """
    prompt = batch["token_mask"]
    columns = {
        "tokens": (batch["tokens"], written.tokens),
        "token_mask": (prompt, written.token_mask),
        "written": (jnp.zeros_like(prompt), written.token_mask),
    }
    joined = {k: jnp.concatenate(pair, axis=1) for k, pair in columns.items()}
    order = jnp.argsort(~joined["token_mask"], axis=1, stable=True)
    return {k: jnp.take_along_axis(x, order, axis=1) for k, x in joined.items()}


def pair(batch: Batch, written: Written) -> dict[str, Array]:
    """Sources with what an encoder-decoder wrote about them as their targets.

    Returns:
        `tokens`, `token_mask`, `target_tokens` and `target_mask`.
    """
    return {
        "tokens": batch["tokens"],
        "token_mask": batch["token_mask"],
        "target_tokens": written.tokens,
        "target_mask": written.token_mask,
    }


def token_log_probs(model: Model, params: Params, batch: Batch) -> Float[Array, "b n"]:
    """log p(token | those before it) under a network, in nats.

    Args:
        model: any language model, not only the one that wrote the texts.
        params: its parameters.
        batch: texts, `tokens` and `token_mask` [b, n]; of an encoder-decoder its
            sources, with `target_tokens` and `target_mask`, which are then meant.

    Returns:
        Entry j is about token j; 0 where it is padding, or the first of a text that
        nothing stands before.
    """
    logits = model.apply(params, batch, None).logits
    if "target_tokens" in batch:
        tokens, there = batch["target_tokens"], batch["target_mask"]
    else:
        mask = batch["token_mask"]
        logits, tokens = logits[:, :-1], batch["tokens"][:, 1:]
        there = mask[:, :-1] & mask[:, 1:]
    log_probs = jnp.take_along_axis(
        jax.nn.log_softmax(logits), tokens[..., None], axis=-1
    )[..., 0]
    log_probs = jnp.where(there, log_probs, 0.0)
    if "target_tokens" in batch:
        return log_probs
    return jnp.pad(log_probs, ((0, 0), (1, 0)))
