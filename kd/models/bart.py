"""BART: the encoder-decoder of Lewis et al. (2020).

Numerically the `BartForConditionalGeneration` of Hugging Face's transformers; its
weights come and go through `kd.models.bart_checkpoint`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from kd.models import causal, seq2seq
from kd.models.linear import linear
from kd.models.seq2seq import Attention, KeysAndValues, Seq2SeqCache
from kd.models.sizes import check_positive, check_rates, check_sizes, check_start_token
from kd.types import ComputeDtype, Model, Outputs

OFFSET = 2
"""Rows of the table of positions before that of position 0; nothing reads them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bart:
    """Sizes of a BART; by default those of bart-large.

        x = norm(x + attention(x));  [x = norm(x + attention(x, source));]
        x = norm(x + W_out gelu(W_in x + b_in) + b_out)

    Encoder and decoder begin with norm(embedding + position). The head is the table of
    embeddings, and a bias that is not trained and most often 0.

    Args:
        vocab_size: token ids with an embedding.
        num_layers: of the encoder.
        num_decoder_layers: of the decoder.
        width: of the residual stream; every head sees `width / num_heads` of it.
        num_heads: attention heads per layer.
        mlp_width: hidden units of each layer's MLP.
        max_length: positions with an embedding, the longest source and the longest
            target in tokens.
        scaled: embeddings are multiplied by √width.
        start_token: what the decoder begins with.
        dropout: rate on embeddings and residual branches.
        attention_dropout: rate on attention probabilities.
        mlp_dropout: rate on hidden units of MLPs.
        initializer_stddev: of the normal distribution that fresh weights come from.
        remat: compute activations inside a layer again for the gradient rather than
            keep them; less memory, a third more time.

    Raises:
        ValueError: a size is not positive, a rate is outside [0, 1), or `num_heads`
            does not divide `width`.

    Source: lewis2020bart.
    """

    vocab_size: int = 50265
    num_layers: int = 12
    num_decoder_layers: int = 12
    width: int = 1024
    num_heads: int = 16
    mlp_width: int = 4096
    max_length: int = 1024
    scaled: bool = False
    start_token: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.0
    mlp_dropout: float = 0.0
    initializer_stddev: float = 0.02
    remat: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, but="start_token")
        check_start_token(self)
        check_rates(self, "dropout", "attention_dropout", "mlp_dropout")
        check_positive(self, "initializer_stddev")
        if self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} is not divisible by num_heads {self.num_heads}"
            )

    @classmethod
    def large(cls, **changes: Any) -> "Bart":
        """bart-large: 12 + 12 layers of width 1024, 406 M parameters."""
        return cls(**changes)

    @classmethod
    def base(cls, **changes: Any) -> "Bart":
        """bart-base: 6 + 6 layers of width 768, 139 M parameters."""
        sizes = cls(
            num_layers=6,
            num_decoder_layers=6,
            width=768,
            num_heads=12,
            mlp_width=3072,
        )
        return dataclasses.replace(sizes, **changes)

    @classmethod
    def distil_12_6(cls, **changes: Any) -> "Bart":
        """distilbart-12-6: bart-large with half a decoder, 306 M parameters."""
        return dataclasses.replace(cls(num_decoder_layers=6), **changes)

    def build(
        self,
        num_classes: int | None = None,
        *,
        compute_dtype: ComputeDtype = "float32",
    ) -> Model:
        """The network as pure functions; its classes are the tokens.

        A batch holds the source, `tokens` [b, n] int32 and `token_mask` [b, n] bool
        (True where the token is real), and what is to be written, `target_tokens`
        [b, m] and `target_mask` [b, m], which the network shifts itself. Padding may be
        on either side and changes nothing. Entry j of the logits, [b, m, v], is about
        target token j. `Outputs.hidden` has the embeddings that the decoder reads,
        normalised, and the output of its every layer; `source_hidden` those of the
        encoder.

        Args:
            num_classes: v, tokens that there are, where the vocabulary is smaller than
                the table of embeddings: the rows beyond are padding and have no logits.
                None for `vocab_size`.
            compute_dtype: of matrix products and of `Outputs.hidden`. Parameters,
                softmax, norm statistics and logits are float32 in any case.

        Returns:
            The model; its `apply` raises `UserError` if n or m exceeds `max_length`.

        Raises:
            UserError: `num_classes` exceeds `vocab_size`.
        """
        num_outputs = causal.num_outputs(num_classes, self.vocab_size)
        return _model(self, num_outputs, jnp.dtype(compute_dtype))


def _model(bart: Bart, num_outputs: int, dtype: DTypeLike) -> Model:
    return seq2seq.encoder_decoder(
        lambda *, train: _Network(bart, num_outputs, dtype, train),
        num_layers=bart.num_decoder_layers,
        num_heads=bart.num_heads,
        head_width=bart.width // bart.num_heads,
        start_token=bart.start_token,
        max_length=bart.max_length,
        dtype=dtype,
    )


class _Network(nn.Module):
    """Embeddings, encoder, decoder, head; see `kd.models.seq2seq.encoder_decoder`."""

    bart: Bart
    num_outputs: int
    dtype: DTypeLike
    train: bool

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "b m"],
        token_mask: Bool[Array, "b m"],
        source: tuple[Int[Array, "b n"], Bool[Array, "b n"]] | None,
        cache: Seq2SeqCache | None = None,
    ) -> tuple[Outputs, Seq2SeqCache | None]:
        bart = self.bart
        normal = nn.initializers.normal(bart.initializer_stddev)
        embeddings = self.param("embeddings", normal, (bart.vocab_size, bart.width))

        def embedded(tokens: Int[Array, "b k"]) -> Float[Array, "b k d"]:
            return embeddings[tokens] * (bart.width**0.5 if bart.scaled else 1.0)

        def stack(name: str, num_layers: int) -> _Stack:
            return _Stack(bart, num_layers, self.dtype, self.train, name=name)

        read, source_hidden, source_attention = None, (), ()
        if source is not None:
            source_tokens, source_mask = source
            source_hidden, source_attention, _, _ = stack("encoder", bart.num_layers)(
                embedded(source_tokens),
                seq2seq.positions(source_mask),
                source_mask[:, None],
            )
            read = source_hidden[-1]
        else:
            source_mask = cache.source_mask  # pyrefly: ignore
        written = None if cache is None else cache.written
        positions, sees = causal.positions_and_sight(token_mask, written)
        hidden, attention, cross_attention, layers = stack(
            "decoder", bart.num_decoder_layers
        )(embedded(tokens), positions, sees, read, source_mask[:, None], cache)
        bias = self.param("head_bias", nn.initializers.zeros, (1, bart.vocab_size))
        head = causal.head(
            hidden[-1],
            embeddings[: self.num_outputs],
            self.dtype,
            bias=jax.lax.stop_gradient(bias[0, : self.num_outputs]),
        )
        outputs = Outputs(
            head.logits(),
            hidden,
            attention,
            source_hidden,
            source_attention,
            cross_attention,
            head,
        )
        return outputs, seq2seq.with_written(cache, layers, token_mask)


class _Stack(nn.Module):
    """Positions and layers: the encoder, or the decoder, which also reads a source."""

    bart: Bart
    num_layers: int
    dtype: DTypeLike
    train: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b m d"],
        positions: Int[Array, "b m"],
        sees: Bool[Array, "b #m s"],
        source: Float[Array, "b n d"] | None = None,
        sees_source: Bool[Array, "b 1 n"] | None = None,
        cache: Seq2SeqCache | None = None,
    ) -> tuple[Any, ...]:
        bart = self.bart
        table = self.param(
            "positions",
            nn.initializers.normal(bart.initializer_stddev),
            (bart.max_length + OFFSET, bart.width),
        )
        x = x + table[positions + OFFSET]
        x = _layer_norm(self.dtype, name="embedding_norm")(x)
        x = nn.Dropout(bart.dropout, deterministic=not self.train)(x)
        layer = nn.remat(_Layer) if bart.remat else _Layer
        hidden, attention, cross_attention, layers = [x], [], [], []
        for i in range(self.num_layers):
            kept = kept_source = None
            if cache is not None:
                kept = cache.written.layers[i]
                kept_source = cache.source[i] if cache.source else None
            x, probs, cross_probs, new = layer(
                bart, self.dtype, self.train, name=f"layer_{i}"
            )(x, sees, source, sees_source, positions, kept, kept_source)
            hidden.append(x)
            attention.append(probs)
            cross_attention.append(cross_probs)
            layers.append(new)
        return tuple(hidden), tuple(attention), tuple(cross_attention), layers


class _Layer(nn.Module):
    """Attention, to the source too in the decoder, and an MLP; norms are behind."""

    bart: Bart
    dtype: DTypeLike
    train: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b m d"],
        sees: Bool[Array, "b #m s"],
        source: Float[Array, "b n d"] | None,
        sees_source: Bool[Array, "b 1 n"] | None,
        positions: Int[Array, "b m"],
        kept: KeysAndValues | None,
        kept_source: KeysAndValues | None,
    ) -> tuple[
        Float[Array, "b m d"],
        Float[Array, "b h m s"],
        Float[Array, "b h m n"] | None,
        tuple[KeysAndValues, KeysAndValues | None],
    ]:
        bart = self.bart
        stddev = bart.initializer_stddev

        def attention(name: str) -> Attention:
            return Attention(
                bart.num_heads, bart.width // bart.num_heads, (stddev,) * 4, True,
                None, bart.attention_dropout, self.dtype, self.train, name=name,
            )  # fmt: skip

        def dense(name: str, width: int) -> nn.Dense:
            return linear(width, stddev=stddev, dtype=self.dtype, name=name)

        def added(name: str, y: Float[Array, "b m d"]) -> Float[Array, "b m d"]:
            return _layer_norm(self.dtype, name=name)(x + dropout(bart.dropout)(y))

        def dropout(rate: float) -> nn.Dropout:
            return nn.Dropout(rate, deterministic=not self.train)

        found, probs, new = attention("attention")(
            x, x, sees, kept=kept, positions=positions
        )
        x = added("attention_norm", found)
        cross_probs = new_source = None
        if sees_source is not None:
            found, cross_probs, new_source = attention("cross_attention")(
                x, source, sees_source, kept=kept_source
            )
            x = added("cross_attention_norm", found)

        y = nn.gelu(dense("mlp_in", bart.mlp_width)(x), approximate=False)
        y = dense("mlp_out", bart.width)(dropout(bart.mlp_dropout)(y))
        return added("mlp_norm", y), probs, cross_probs, (new, new_source)


def _layer_norm(dtype: DTypeLike, *, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(
        epsilon=1e-5,
        dtype=dtype,
        use_fast_variance=False,  # E[x^2] - E[x]^2 cancels; and is no faster here.
        name=name,
    )
