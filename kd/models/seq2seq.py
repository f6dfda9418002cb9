"""What encoder-decoders share: attention, the cache, the shift of targets, the `Model`.

Axes beside those of `kd.types`: m tokens of a target, e width of a head, s slots of a
cache.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from kd.errors import UserError
from kd.models import causal
from kd.models.causal import KeyValueCache
from kd.models.linear import linear
from kd.types import Batch, Decoder, Model, Outputs, Params

KeysAndValues = tuple[Float[Array, "b _ h e"], Float[Array, "b _ h e"]]


class Seq2SeqCache(NamedTuple):
    """What the decoder remembers of the source, and of what is written so far."""

    written: KeyValueCache
    """Of the start token and those after it."""
    source: tuple[KeysAndValues, ...]
    """Of every layer of the decoder, what it attends to in the source: computed once.
    () before."""
    source_mask: Bool[Array, "b n"]


class Attention(nn.Module):
    """Queries of one text attend to keys and values of another, or of the same.

    Args:
        num_heads: h.
        head_width: e.
        stddevs: of fresh weights of query, key, value and out.
        use_bias: whether these are affine.
        scale: of scores; 1 / √e if None.
        dropout: rate on probabilities.
        dtype: of matrix products.
        train: whether dropout is on.
    """

    num_heads: int
    head_width: int
    stddevs: tuple[float, float, float, float]
    use_bias: bool
    scale: float | None
    dropout: float
    dtype: DTypeLike
    train: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        read: Float[Array, "b k d"] | None,
        sees: Bool[Array, "b #n s"],
        *,
        kept: KeysAndValues | None = None,
        positions: Int[Array, "b k"] | None = None,
        bias: Float[Array, "#b h n s"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b h n s"], KeysAndValues]:
        """What is attended to is `read`, or what is `kept`, or both.

        Args:
            x: of the tokens that attend.
            read: of the tokens to attend to; None if `kept` has them all.
            sees: which of them each sees.
            kept: keys and values of earlier calls, with slots for those of `read`.
            positions: the slots of these.
            bias: see `kd.models.causal.attend`.

        Returns:
            What was found, the probabilities, and keys and values to keep.
        """
        stddevs = dict(zip(("query", "key", "value", "out"), self.stddevs, strict=True))

        def dense(name: str, width: int) -> nn.Dense:
            return linear(
                width,
                stddev=stddevs[name],
                dtype=self.dtype,
                use_bias=self.use_bias,
                name=name,
            )

        def heads(name: str, x: Float[Array, "b n d"]) -> Float[Array, "b n h e"]:
            flat = dense(name, self.num_heads * self.head_width)(x)
            return flat.reshape(*x.shape[:2], self.num_heads, self.head_width)

        query = heads("query", x)
        if read is not None:
            new = heads("key", read), heads("value", read)
            kept = causal.remember(kept, *new, cast(Any, positions)) if kept else new
        key, value = kept  # pyrefly: ignore
        dropout = nn.Dropout(self.dropout, deterministic=not self.train)
        mixed, probs = causal.attend(
            query, key, value, sees, dropout, scale=self.scale, bias=bias
        )
        return dense("out", x.shape[-1])(mixed), probs, (key, value)


def shifted(
    tokens: Int[Array, "b m"], mask: Bool[Array, "b m"], start: int
) -> Int[Array, "b m"]:
    """What the decoder reads to predict a target: the tokens before, `start` first."""
    before, there = (
        jnp.pad(x[:, :-1], ((0, 0), (1, 0))) for x in (tokens, mask)
    )  # fmt: skip
    return jnp.where(there, before, start)


def encoder_decoder(
    network: Callable[..., Any],
    *,
    num_layers: int,
    num_heads: int,
    head_width: int,
    start_token: int,
    max_length: int | None,
    dtype: DTypeLike,
) -> Model:
    """A `Model` of an encoder-decoder.

    Args:
        network: by the keyword `train`, a Linen module (tokens [b, m] that the decoder
            reads, their mask, source, cache) -> (outputs, cache). The source is its
            tokens [b, n] and their mask, or None where the cache has it. Without a
            cache the decoder reads whole texts; with one, what follows the tokens in
            it, and returns it with them.
        num_layers: of the decoder; and the following sizes are those of its cache.
        num_heads: h.
        head_width: e.
        start_token: what a target begins with.
        max_length: positions that there are; None for no limit.
        dtype: of activations.
    """

    def check(what: str, num_tokens: int) -> None:
        if max_length is not None and num_tokens > max_length:
            raise UserError(
                f"a batch has {num_tokens} tokens per {what}; the model has positions "
                f"for at most {max_length}"
            )

    def source_of(batch: Batch) -> tuple[Any, Any]:
        if "tokens" not in batch:
            raise UserError("an encoder-decoder reads text, and a batch has no tokens")
        check("source", batch["tokens"].shape[1])
        return batch["tokens"], batch["token_mask"]

    def init(key: PRNGKeyArray, batch: Batch) -> Params:
        del batch  # No parameter's shape depends on it.
        tokens = jnp.zeros((1, 1), jnp.int32)
        text = tokens, tokens == 0
        return network(train=False).init(key, *text, text)["params"]

    def apply(params: Params, batch: Batch, key: PRNGKeyArray | None) -> Outputs:
        source = source_of(batch)
        if "target_tokens" not in batch:
            raise UserError(
                "an encoder-decoder is told what it is to write, and a batch has no "
                "target_tokens"
            )
        tokens, mask = batch["target_tokens"], batch["target_mask"]
        check("target", tokens.shape[1])
        module = cast(nn.Module, network(train=key is not None))
        rngs = None if key is None else {"dropout": key}
        inputs = shifted(tokens, mask, start_token)
        return module.apply({"params": params}, inputs, mask, source, rngs=rngs)[0]

    def start(params: Params, batch: Batch, room: int) -> tuple[Array, Seq2SeqCache]:
        source = source_of(batch)
        check("text that is to be written", room)
        b = len(source[0])
        slots = jnp.zeros((b, room, num_heads, head_width), dtype)
        written = KeyValueCache(((slots, slots),) * num_layers, jnp.zeros(b, jnp.int32))
        cache = Seq2SeqCache(written, (), source[1])
        return read(params, jnp.full(b, start_token), source, cache)

    def step(
        params: Params, cache: Seq2SeqCache, tokens: Int[Array, "b"]
    ) -> tuple[Array, Seq2SeqCache]:
        return read(params, tokens, None, cache)

    def read(params: Params, tokens: Int[Array, "b"], source: Any, cache: Any) -> Any:
        real = jnp.ones((len(tokens), 1), bool)
        outputs, cache = network(train=False).apply(
            {"params": params}, tokens[:, None], real, source, cache
        )
        return outputs.logits[:, 0], cache

    return Model(init, apply, Decoder(start, step))


def positions(mask: Bool[Array, "b n"]) -> Int[Array, "b n"]:
    """Of a source's tokens; padding has none, so that it changes nothing."""
    return jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)


def with_written(
    cache: Seq2SeqCache | None,
    layers: list[tuple[KeysAndValues, KeysAndValues]],
    mask: Bool[Array, "b m"],
) -> Seq2SeqCache | None:
    """The cache after one more call, if there is one.

    Args:
        cache: before.
        layers: what every layer of the decoder keeps of the text and of the source.
        mask: of the tokens that were read.
    """
    if cache is None:
        return None
    written, source = zip(*layers, strict=True)
    length = cache.written.length + mask.sum(axis=1)
    return Seq2SeqCache(KeyValueCache(written, length), source, cache.source_mask)
