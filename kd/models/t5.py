"""T5: the encoder-decoder of Raffel et al. (2020), and its version 1.1.

Numerically the `T5ForConditionalGeneration` of Hugging Face's transformers; its weights
come and go through `kd.models.t5_checkpoint`. Flan-T5 and T0 are of version 1.1.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from kd.models import causal, distances, seq2seq
from kd.models.linear import linear
from kd.models.seq2seq import Attention, KeysAndValues, Seq2SeqCache
from kd.models.sizes import check_positive, check_rates, check_sizes, check_start_token
from kd.types import ComputeDtype, Model, Outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5:
    """Sizes of a T5; by default those of t5-small.

        x += attention(norm(x));  [x += attention(norm(x), source);]  x += mlp(norm(x))
        mlp(x) = W_out relu(W_in x),  or gated  W_out (gelu(W_gate x) * W_up x)

    Norms divide by the root mean square, nothing has a bias, and scores are not
    divided: scores(i, j) = q_i · k_j + bias[bucket(j - i)], where the biases are those
    of the first layer in all layers.

    Args:
        vocab_size: token ids with an embedding.
        num_layers: of the encoder.
        num_decoder_layers: of the decoder.
        width: of the residual stream.
        num_heads: attention heads per layer.
        head_width: of every head.
        mlp_width: hidden units of each layer's MLP.
        gated: of the two MLPs, that of version 1.1.
        tied: the head is the table of embeddings; else it has its own.
        scaled: what the head reads is divided by √width, as in version 1.0.
        num_buckets: of distances; half of them are for one distance each.
        max_distance: from which on all are in one bucket.
        start_token: what the decoder begins with.
        dropout: rate on embeddings, attention probabilities, hidden units of MLPs,
            residual branches and outputs.
        norm_epsilon: added to the mean square in norms.
        initializer_factor: multiplies the stddevs that fresh weights come from.
        remat: compute activations inside a layer again for the gradient rather than
            keep them; less memory, a third more time.

    Raises:
        ValueError: a size is not positive, the rate is outside [0, 1), or there are
            too few buckets or distances for them.

    Source: raffel2020exploring; the gated MLP shazeer2020glu.
    """

    vocab_size: int = 32128
    num_layers: int = 6
    num_decoder_layers: int = 6
    width: int = 512
    num_heads: int = 8
    head_width: int = 64
    mlp_width: int = 2048
    gated: bool = False
    tied: bool = True
    scaled: bool = True
    num_buckets: int = 32
    max_distance: int = 128
    start_token: int = 0
    dropout: float = 0.1
    norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    remat: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, but="start_token")
        check_start_token(self)
        check_rates(self, "dropout")
        check_positive(self, "norm_epsilon", "initializer_factor")
        if self.num_buckets < 4:
            raise ValueError(f"num_buckets is {self.num_buckets}, must be at least 4")
        if self.max_distance <= self.num_buckets // 2:
            raise ValueError(
                f"max_distance is {self.max_distance}, must be more than half of the "
                f"num_buckets, {self.num_buckets // 2}"
            )

    @classmethod
    def small(cls, **changes: Any) -> "T5":
        """t5-small: 6 + 6 layers of width 512, 61 M parameters."""
        return cls(**changes)

    @classmethod
    def base(cls, **changes: Any) -> "T5":
        """t5-base: 12 + 12 layers of width 768, 223 M parameters."""
        sizes = cls(
            num_layers=12,
            num_decoder_layers=12,
            width=768,
            num_heads=12,
            mlp_width=3072,
        )
        return dataclasses.replace(sizes, **changes)

    @classmethod
    def large(cls, **changes: Any) -> "T5":
        """t5-large: 24 + 24 layers of width 1024, 738 M parameters."""
        sizes = cls(
            num_layers=24,
            num_decoder_layers=24,
            width=1024,
            num_heads=16,
            mlp_width=4096,
        )
        return dataclasses.replace(sizes, **changes)

    @classmethod
    def flan_small(cls, **changes: Any) -> "T5":
        """flan-t5-small, t5-v1_1-small: 8 + 8 layers of width 512, 77 M parameters."""
        return dataclasses.replace(_v1_1(8, 512, 6, 1024), **changes)

    @classmethod
    def flan_base(cls, **changes: Any) -> "T5":
        """flan-t5-base, t5-v1_1-base: 12 + 12 layers of width 768, 248 M parameters."""
        return dataclasses.replace(_v1_1(12, 768, 12, 2048), **changes)

    @classmethod
    def flan_large(cls, **changes: Any) -> "T5":
        """flan-t5-large, t5-v1_1-large: 24 + 24 layers of width 1024, 783 M."""
        return dataclasses.replace(_v1_1(24, 1024, 16, 2816), **changes)

    @classmethod
    def t0_3b(cls, **changes: Any) -> "T5":
        """T0_3B, flan-t5-xl, t5-v1_1-xl: 24 + 24 layers of width 2048, 2.85 G."""
        return dataclasses.replace(_v1_1(24, 2048, 32, 5120), **changes)

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
        target token j. `Outputs.hidden` has the embeddings that the decoder reads and
        the output of its every layer, the last one normalised; `source_hidden` those
        of the encoder.

        Args:
            num_classes: v, tokens that there are, where the vocabulary is smaller than
                the table of embeddings: the rows beyond are padding and have no logits.
                None for `vocab_size`.
            compute_dtype: of matrix products and of `Outputs.hidden`. Parameters,
                softmax, norm statistics and logits are float32 in any case.

        Returns:
            The model.

        Raises:
            UserError: `num_classes` exceeds `vocab_size`.
        """
        num_outputs = causal.num_outputs(num_classes, self.vocab_size)
        return _model(self, num_outputs, jnp.dtype(compute_dtype))


def _v1_1(num_layers: int, width: int, num_heads: int, mlp_width: int) -> T5:
    return T5(
        num_layers=num_layers,
        num_decoder_layers=num_layers,
        width=width,
        num_heads=num_heads,
        mlp_width=mlp_width,
        gated=True,
        tied=False,
        scaled=False,
    )


def _model(t5: T5, num_outputs: int, dtype: DTypeLike) -> Model:
    return seq2seq.encoder_decoder(
        lambda *, train: _Network(t5, num_outputs, dtype, train),
        num_layers=t5.num_decoder_layers,
        num_heads=t5.num_heads,
        head_width=t5.head_width,
        start_token=t5.start_token,
        max_length=None,
        dtype=dtype,
    )


class _Network(nn.Module):
    """Embeddings, encoder, decoder, head; see `kd.models.seq2seq.encoder_decoder`."""

    t5: T5
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
        t5 = self.t5
        stddev = t5.initializer_factor

        def table(name: str) -> Float[Array, "rows d"]:
            normal = nn.initializers.normal(stddev)
            return self.param(name, normal, (t5.vocab_size, t5.width))

        def stack(name: str, num_layers: int, *, bidirectional: bool) -> _Stack:
            return _Stack(
                t5, num_layers, bidirectional, self.dtype, self.train, name=name
            )

        embeddings = table("embeddings")
        read, source_hidden, source_attention = None, (), ()
        if source is not None:
            source_tokens, source_mask = source
            source_hidden, source_attention, _, _ = stack(
                "encoder", t5.num_layers, bidirectional=True
            )(embeddings[source_tokens], source_mask[:, None])
            read = source_hidden[-1]
        else:
            source_mask = cache.source_mask  # pyrefly: ignore
        written = None if cache is None else cache.written
        positions, sees = causal.positions_and_sight(token_mask, written)
        hidden, attention, cross_attention, layers = stack(
            "decoder", t5.num_decoder_layers, bidirectional=False
        )(embeddings[tokens], sees, read, source_mask[:, None], positions, cache)
        x = hidden[-1]
        if t5.scaled:
            x = x * t5.width**-0.5
        rows = embeddings if t5.tied else table("head")
        head = causal.head(x, rows[: self.num_outputs], self.dtype)
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
    """Layers and a norm: the encoder, or the decoder, which also reads a source."""

    t5: T5
    num_layers: int
    bidirectional: bool
    dtype: DTypeLike
    train: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b m d"],
        sees: Bool[Array, "b #m s"],
        source: Float[Array, "b n d"] | None = None,
        sees_source: Bool[Array, "b 1 n"] | None = None,
        positions: Int[Array, "b m"] | None = None,
        cache: Seq2SeqCache | None = None,
    ) -> tuple[Any, ...]:
        t5 = self.t5
        normal = nn.initializers.normal(t5.initializer_factor * t5.width**-0.5)
        biases = self.param("distances", normal, (t5.num_buckets, t5.num_heads))
        # Distances are those of places: padding moves both ends of one alike.
        places = jnp.arange(x.shape[1])[None]
        if cache is not None:
            places += cache.written.length[:, None]
        buckets = distances.bucket(
            jnp.arange(sees.shape[-1]) - places[..., None],
            bidirectional=self.bidirectional,
            num_buckets=t5.num_buckets,
            max_distance=t5.max_distance,
        )
        bias = jnp.moveaxis(biases[buckets], -1, 1)
        dropout = nn.Dropout(t5.dropout, deterministic=not self.train)
        x = dropout(x.astype(self.dtype))
        layer = nn.remat(_Layer) if t5.remat else _Layer
        hidden, attention, cross_attention, layers = [x], [], [], []
        for i in range(self.num_layers):
            kept = kept_source = None
            if cache is not None:
                kept = cache.written.layers[i]
                kept_source = cache.source[i] if cache.source else None
            x, probs, cross_probs, new = layer(
                t5, self.dtype, self.train, name=f"layer_{i}"
            )(x, sees, bias, source, sees_source, positions, kept, kept_source)
            hidden.append(x)
            attention.append(probs)
            cross_attention.append(cross_probs)
            layers.append(new)
        hidden[-1] = dropout(_norm(t5, self.dtype, name="norm")(x))
        return tuple(hidden), tuple(attention), tuple(cross_attention), layers


class _Layer(nn.Module):
    """Attention, to the source too in the decoder, and an MLP."""

    t5: T5
    dtype: DTypeLike
    train: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b m d"],
        sees: Bool[Array, "b #m s"],
        bias: Float[Array, "#b h m s"],
        source: Float[Array, "b n d"] | None,
        sees_source: Bool[Array, "b 1 n"] | None,
        positions: Int[Array, "b m"] | None,
        kept: KeysAndValues | None,
        kept_source: KeysAndValues | None,
    ) -> tuple[
        Float[Array, "b m d"],
        Float[Array, "b h m s"],
        Float[Array, "b h m n"] | None,
        tuple[KeysAndValues, KeysAndValues | None],
    ]:
        t5 = self.t5
        dropout = nn.Dropout(t5.dropout, deterministic=not self.train)
        inner = t5.num_heads * t5.head_width
        factor = t5.initializer_factor

        def attention(name: str) -> Attention:
            into = factor * t5.width**-0.5
            stddevs = (into * t5.head_width**-0.5, into, into, factor * inner**-0.5)
            return Attention(
                t5.num_heads, t5.head_width, stddevs, False, 1.0, t5.dropout,
                self.dtype, self.train, name=name,
            )  # fmt: skip

        def dense(name: str, fan_in: int, width: int) -> nn.Dense:
            return linear(
                width,
                stddev=factor * fan_in**-0.5,
                dtype=self.dtype,
                use_bias=False,
                name=name,
            )

        def norm(name: str) -> nn.RMSNorm:
            return _norm(t5, self.dtype, name=name)

        y = norm("attention_norm")(x)
        found, probs, new = attention("attention")(
            y, y, sees, kept=kept, positions=positions, bias=bias
        )
        x = x + dropout(found)
        cross_probs = new_source = None
        if sees_source is not None:
            y = norm("cross_attention_norm")(x)
            found, cross_probs, new_source = attention("cross_attention")(
                y, source, sees_source, kept=kept_source
            )
            x = x + dropout(found)

        y = norm("mlp_norm")(x)
        if t5.gated:
            y = nn.gelu(dense("gate", t5.width, t5.mlp_width)(y), approximate=True) * (
                dense("up", t5.width, t5.mlp_width)(y)
            )
        else:
            y = nn.relu(dense("mlp_in", t5.width, t5.mlp_width)(y))
        y = dense("mlp_out", t5.mlp_width, t5.width)(dropout(y))
        return x + dropout(y), probs, cross_probs, (new, new_source)


def _norm(t5: T5, dtype: DTypeLike, *, name: str) -> nn.RMSNorm:
    return nn.RMSNorm(epsilon=t5.norm_epsilon, dtype=dtype, name=name)
