"""What decoder-only language models share: who sees whom, the cache, the `Model`.

Axes beside those of `kd.types`: g heads of keys and values, e width of a head, m slots
of a cache.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from kd.errors import UserError
from kd.types import Batch, Decoder, Head, Model, Outputs, Params


class KeyValueCache(NamedTuple):
    """Keys and values of the tokens read so far, a token's slot being its position."""

    layers: tuple[tuple[Float[Array, "b m g e"], Float[Array, "b m g e"]], ...]
    """Of every layer, keys and values."""
    length: Int[Array, "b"]
    """Tokens read so far. What later slots hold is never seen."""


def positions_and_sight(
    token_mask: Bool[Array, "b n"],
    cache: KeyValueCache | None,
    window: int | None = None,
) -> tuple[Int[Array, "b n"], Bool[Array, "b n s"]]:
    """The position of each token, and which keys it sees.

    A token sees those before it and itself. Positions count real tokens, so that
    padding on either side changes nothing.

    Args:
        token_mask: True where a token is real.
        cache: the keys are those of its slots, s = m; or of the tokens if None, s = n.
        window: if given, a token sees itself and the window - 1 before it.
    """
    if cache is None:
        positions = jnp.maximum(jnp.cumsum(token_mask, axis=1) - 1, 0)
        sources, real = positions, token_mask
    else:
        num_slots = cache.layers[0][0].shape[1]
        positions = cache.length[:, None] + jnp.arange(token_mask.shape[1])
        sources, real = jnp.arange(num_slots)[None], jnp.ones((1, num_slots), bool)
    sees = (sources[:, None] <= positions[..., None]) & real[:, None]
    if window is not None:
        sees &= sources[:, None] > positions[..., None] - window
    return positions, sees


def attend(
    query: Float[Array, "b n h e"],
    key: Float[Array, "b s g e"],
    value: Float[Array, "b s g e"],
    sees: Bool[Array, "b #n s"],
    dropout: Callable[[Array], Array],
    *,
    scale: float | None = None,
    bias: Float[Array, "#b h n s"] | None = None,
) -> tuple[Float[Array, "b n he"], Float[Array, "b h n s"]]:
    """softmax(scale q kᵀ + bias) v, a head of keys and values for h / g of queries.

    Args:
        query: of what attends.
        key: of what is attended to.
        value: likewise.
        sees: what.
        dropout: of probabilities.
        scale: 1 / √e if None.
        bias: 0 if None.

    Returns:
        The heads' mixtures side by side, and the probabilities before dropout.
    """
    b, n, h, e = query.shape
    groups = query.reshape(b, n, key.shape[2], -1, e)
    scores = jnp.einsum(
        "bngre,bsge->bgrns", groups, key, preferred_element_type=exact(query.dtype)
    )
    scores = scores / e**0.5 if scale is None else scores * scale
    if bias is not None:
        scores += bias.reshape(len(bias), *scores.shape[1:3], *bias.shape[2:])
    # The mask is finite, so that a row without any real token gives uniform attention
    # and zero gradients rather than NaN.
    probs = jax.nn.softmax(
        jnp.where(sees[:, None, None], scores, jnp.finfo(scores.dtype).min)
    )
    kept = dropout(probs).astype(value.dtype)
    mixed = jnp.einsum("bgrns,bsge->bngre", kept, value)
    return mixed.reshape(b, n, h * e), probs.reshape(b, h, n, -1)


def remember(
    cached: tuple[Array, Array] | None,
    key: Float[Array, "b n g e"],
    value: Float[Array, "b n g e"],
    positions: Int[Array, "b n"],
) -> tuple[Float[Array, "b s g e"], Float[Array, "b s g e"]]:
    """Keys and values to attend to: those given, put into what is cached, if it is."""
    if cached is None:
        return key, value
    rows = jnp.arange(len(key))[:, None]
    return (
        cached[0].at[rows, positions].set(key),
        cached[1].at[rows, positions].set(value),
    )


def head(
    x: Float[Array, "b n d"], table: Float[Array, "v d"], dtype: DTypeLike, **more: Any
) -> Head:
    """Of logits x tableᵀ: the products in `dtype`, their sums in float32."""
    return Head(x.astype(dtype), table.T.astype(dtype), **more)


def exact(dtype: DTypeLike) -> Any:
    """The type of softmax, statistics and logits: float32, or wider if `dtype` is."""
    return jnp.promote_types(dtype, jnp.float32)


def num_outputs(num_classes: int | None, vocab_size: int) -> int:
    """Tokens that a head is over: of a vocabulary of its own size, or a smaller one.

    Raises:
        UserError: there are more tokens than rows of the head.
    """
    if num_classes is None:
        return vocab_size
    if not 1 <= num_classes <= vocab_size:
        raise UserError(
            f"logits over {num_classes:,} tokens are asked of a network that has "
            f"embeddings for {vocab_size:,}"
        )
    return num_classes


def language_model(
    network: Callable[..., Any],
    *,
    num_layers: int,
    num_key_value_heads: int,
    head_width: int,
    max_length: int,
    dtype: DTypeLike,
) -> Model:
    """A `Model` of a decoder-only network.

    Args:
        network: by the keyword `train`, a Linen module (tokens [b, n], token_mask
            [b, n], cache, last [b]) -> (outputs, cache). Without a cache it reads whole
            texts; with one, what follows the tokens in it, with padding on the right
            only, and returns it with them. It gives logits at `last`, [b, 1, v], or
            everywhere.
        num_layers: and the following sizes are those of the cache.
        num_key_value_heads: g.
        head_width: e.
        max_length: positions that there are.
        dtype: of activations.
    """

    def read(batch: Batch, room: int = 0) -> tuple[Any, Any]:
        if "tokens" not in batch:
            raise UserError("a language model reads text, and a batch has no tokens")
        num_tokens = batch["tokens"].shape[1]
        if num_tokens + room > max_length:
            more = f" and is to write {room} more" if room else ""
            raise UserError(
                f"a batch has {num_tokens} tokens per example{more}; "
                f"the model has positions for at most {max_length}"
            )
        return batch["tokens"], batch["token_mask"]

    def init(key: PRNGKeyArray, batch: Batch) -> Params:
        del batch  # No parameter's shape depends on it.
        tokens = jnp.zeros((1, 1), jnp.int32)
        return network(train=False).init(key, tokens, tokens == 0)["params"]

    def apply(params: Params, batch: Batch, key: PRNGKeyArray | None) -> Outputs:
        module = cast(nn.Module, network(train=key is not None))
        rngs = None if key is None else {"dropout": key}
        return module.apply({"params": params}, *read(batch), rngs=rngs)[0]

    def start(params: Params, batch: Batch, room: int) -> tuple[Array, KeyValueCache]:
        tokens, token_mask = read(batch, room)
        # Real tokens first: their places are then their positions.
        order = jnp.argsort(~token_mask, axis=1, stable=True)
        tokens, token_mask = (
            jnp.take_along_axis(x, order, axis=1) for x in (tokens, token_mask)
        )
        b, n = tokens.shape
        slots = jnp.zeros((b, n + room, num_key_value_heads, head_width), dtype)
        cache = KeyValueCache(((slots, slots),) * num_layers, jnp.zeros(b, jnp.int32))
        last = jnp.maximum(token_mask.sum(axis=1) - 1, 0)
        outputs, cache = network(train=False).apply(
            {"params": params}, tokens, token_mask, cache, last
        )
        return outputs.logits[:, 0], cache

    def step(
        params: Params, cache: KeyValueCache, tokens: Int[Array, "b"]
    ) -> tuple[Array, KeyValueCache]:
        real = jnp.ones((len(tokens), 1), bool)
        outputs, cache = network(train=False).apply(
            {"params": params}, tokens[:, None], real, cache
        )
        return outputs.logits[:, 0], cache

    return Model(init, apply, Decoder(start, step))
