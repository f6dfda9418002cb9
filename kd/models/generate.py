"""Text written by a network, token by token, with a cache and static shapes.

Any `Model` with a `decoder` writes. A row's text depends on its prompt and its key
only, not on the batch that it was in.
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
from kd.types import Batch, Decoder, Model, Params


@dataclasses.dataclass(frozen=True)
class Greedy:
    """Every token is the most likely one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Tokens are drawn from softmax(logits / temperature), cut and scaled to sum 1.

    Args:
        temperature: positive.
        top_k: if given, only so many of the most likely tokens are drawn; more where
            the last ones are equally likely.
        top_p: if less than 1, only the fewest most likely tokens that have this
            probability together, of those that `top_k` leaves.

    Source: top_p holtzman2020curious; the order of the three is transformers'.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}, must be positive")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}, must be at least 1")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, must be in (0, 1]")

    def cut(self, logits: Float[Array, "b v"]) -> Float[Array, "b v"]:
        """The logits drawn from: -inf for what is never drawn."""
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = jax.lax.top_k(logits, self.top_k)[0][:, -1:]
            logits = jnp.where(logits < least, -jnp.inf, logits)
        if self.top_p < 1:
            ordered = jnp.sort(logits, axis=-1, descending=True)
            probs = jax.nn.softmax(ordered)
            before = jnp.cumsum(probs, axis=-1) - probs
            least = jnp.min(
                jnp.where(before < self.top_p, ordered, jnp.inf), axis=-1, keepdims=True
            )
            logits = jnp.where(logits < least, -jnp.inf, logits)
        return logits


class Written(NamedTuple):
    """What was written after each prompt."""

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
    """Continues prompts, compiled once for each shape and setting.

    Args:
        model: the network; the same object again, or all is compiled again.
        params: its parameters.
        batch: prompts, `tokens` and `token_mask` [b, n], padded on either side; each
            has at least one real token.
        key: of what is drawn: one for each row, [b]; or one key, of which row i gets
            `jax.random.fold_in(key, i)`. Token j of a row is drawn with
            `fold_in(its key, j)`.
        how: tokens are chosen.
        num_tokens: m, the most that are written.
        end: tokens that end a text.

    Raises:
        UserError: the network does not write, or has not positions enough.
    """
    if model.decoder is None:
        raise UserError("this network does not write: it is no language model")
    inputs = dict(batch)
    if isinstance(how, Beams):
        return Written(
            *beams.search(model.decoder, params, inputs, how, num_tokens, end)
        )
    keys = key
    if key.ndim == 0:
        rows = jnp.arange(len(batch["tokens"]))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
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


def token_log_probs(model: Model, params: Params, batch: Batch) -> Float[Array, "b n"]:
    """log p(token | those before it) under a network, in nats.

    Args:
        model: any language model, not only the one that wrote the texts.
        params: its parameters.
        batch: texts, `tokens` and `token_mask` [b, n].

    Returns:
        Entry j is about token j; 0 where it is padding, or the first of its text.
    """
    tokens, mask = batch["tokens"], batch["token_mask"]
    logits = model.apply(params, batch, None).logits[:, :-1]
    log_probs = jnp.take_along_axis(
        jax.nn.log_softmax(logits), tokens[:, 1:, None], axis=-1
    )[..., 0]
    both = mask[:, :-1] & mask[:, 1:]
    return jnp.pad(jnp.where(both, log_probs, 0.0), ((0, 0), (1, 0)))
