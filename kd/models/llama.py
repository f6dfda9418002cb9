"""Llama and its kin: the decoder of Touvron et al. (2023), with grouped queries.

Numerically the `LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM` and
`Qwen3ForCausalLM` of Hugging Face's transformers; their weights come and go through
`kd.models.llama_checkpoint`, and come through `kd.models.llama_gguf`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from kd.models import causal, rotary
from kd.models.linear import linear
from kd.models.rotary import LinearScaling, Llama3Scaling
from kd.models.sizes import check_positive, check_rates, check_sizes
from kd.types import ComputeDtype, Model, Outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama:
    """Sizes of a Llama; by default those of SmolLM2-135M.

        x += attention(norm(x));  x += W_down (silu(W_gate norm(x)) * W_up norm(x))

    Args:
        vocab_size: token ids with an embedding.
        num_layers: transformer layers.
        width: of the residual stream.
        num_heads: heads of queries per layer.
        num_key_value_heads: heads of keys and values; each serves as many of queries.
        head_width: of every head, an even number.
        mlp_width: hidden units of each layer's MLP.
        max_length: the longest text in tokens.
        tied: the head is the table of embeddings; else it has its own.
        attention_bias: query, key and value have biases, as in Qwen2.
        query_key_norm: queries and keys are normalised in every head, as in Qwen3.
        sliding_window: a token sees itself and so many less one before it, as in the
            first Mistral; all before it if None.
        rotary_base: the rotary frequencies are rotary_base^(-2 i / head_width).
        rotary_scaling: how these are changed for texts longer than those of
            pretraining.
        attention_dropout: rate on attention probabilities.
        norm_epsilon: added to the mean square in norms.
        initializer_stddev: of the normal distribution that fresh weights come from.
        remat: compute activations inside a layer again for the gradient rather than
            keep them; less memory, a third more time.

    Raises:
        ValueError: a size is not positive, the rate is outside [0, 1),
            `num_key_value_heads` does not divide `num_heads`, or `head_width` is odd.

    Source: touvron2023llama; grouped queries ainslie2023gqa, rotary positions
        su2024roformer, the MLP shazeer2020glu.
    """

    vocab_size: int = 49152
    num_layers: int = 30
    width: int = 576
    num_heads: int = 9
    num_key_value_heads: int = 3
    head_width: int = 64
    mlp_width: int = 1536
    max_length: int = 8192
    tied: bool = True
    attention_bias: bool = False
    query_key_norm: bool = False
    sliding_window: int | None = None
    rotary_base: float = 100_000.0
    rotary_scaling: LinearScaling | Llama3Scaling | None = None
    attention_dropout: float = 0.0
    norm_epsilon: float = 1e-5
    initializer_stddev: float = 0.02
    remat: bool = False

    def __post_init__(self) -> None:
        windowed = self.sliding_window is not None
        check_sizes(self, more=["sliding_window"] * windowed)
        check_positive(self, "rotary_base", "norm_epsilon", "initializer_stddev")
        check_rates(self, "attention_dropout")
        if self.num_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not divisible by num_key_value_heads "
                f"{self.num_key_value_heads}"
            )
        if self.head_width % 2:
            raise ValueError(f"head_width is {self.head_width}, must be even")

    @classmethod
    def smollm2_135m(cls, **changes: Any) -> "Llama":
        """SmolLM2-135M: 30 layers of width 576, 135 M parameters."""
        return cls(**changes)

    @classmethod
    def smollm2_360m(cls, **changes: Any) -> "Llama":
        """SmolLM2-360M: 32 layers of width 960, 362 M parameters."""
        sizes = cls(
            num_layers=32,
            width=960,
            num_heads=15,
            num_key_value_heads=5,
            mlp_width=2560,
        )
        return dataclasses.replace(sizes, **changes)

    @classmethod
    def llama3_2_1b(cls, **changes: Any) -> "Llama":
        """Llama-3.2-1B: 16 layers of width 2048, 1.24 G parameters."""
        sizes = cls(
            vocab_size=128256,
            num_layers=16,
            width=2048,
            num_heads=32,
            num_key_value_heads=8,
            mlp_width=8192,
            max_length=131072,
            rotary_base=500_000.0,
            rotary_scaling=Llama3Scaling(factor=32.0),
        )
        return dataclasses.replace(sizes, **changes)

    @classmethod
    def qwen2_5_0_5b(cls, **changes: Any) -> "Llama":
        """Qwen2.5-0.5B: 24 layers of width 896, 494 M parameters."""
        sizes = cls(
            vocab_size=151936,
            num_layers=24,
            width=896,
            num_heads=14,
            num_key_value_heads=2,
            mlp_width=4864,
            max_length=32768,
            attention_bias=True,
            rotary_base=1_000_000.0,
            norm_epsilon=1e-6,
        )
        return dataclasses.replace(sizes, **changes)

    @classmethod
    def mistral_7b(cls, **changes: Any) -> "Llama":
        """Mistral-7B-v0.3: 32 layers of width 4096, 7.25 G parameters."""
        sizes = cls(
            vocab_size=32768,
            num_layers=32,
            width=4096,
            num_heads=32,
            num_key_value_heads=8,
            head_width=128,
            mlp_width=14336,
            max_length=32768,
            tied=False,
            rotary_base=1_000_000.0,
        )
        return dataclasses.replace(sizes, **changes)

    @classmethod
    def mistral_7b_v0_1(cls, **changes: Any) -> "Llama":
        """Mistral-7B-v0.1, with a sliding window: 7.24 G parameters."""
        sizes = cls.mistral_7b(
            vocab_size=32000, rotary_base=10_000.0, sliding_window=4096
        )
        return dataclasses.replace(sizes, **changes)

    def build(
        self,
        num_classes: int | None = None,
        *,
        compute_dtype: ComputeDtype = "float32",
    ) -> Model:
        """The network as pure functions; its `classes` are the tokens.

        A batch holds `tokens` [b, n] int32 and `token_mask` [b, n] bool (True where the
        token is real). Padding may be on either side and changes nothing. Entry j of
        the logits, [b, n, v], is about the token after j. `Outputs.hidden` has the
        embeddings and the output of every layer, the last one normalised.

        Args:
            num_classes: v, tokens that there are, where the vocabulary is smaller than
                the table of embeddings: the rows beyond are padding and have no logits.
                None for `vocab_size`.
            compute_dtype: of matrix products and of `Outputs.hidden`. Parameters,
                softmax, norm statistics and logits are float32 in any case.

        Returns:
            The model; its `apply` raises `UserError` if n exceeds `max_length`.

        Raises:
            UserError: `num_classes` exceeds `vocab_size`.
        """
        num_outputs = causal.num_outputs(num_classes, self.vocab_size)
        return _model(self, num_outputs, jnp.dtype(compute_dtype))


def _model(llama: Llama, num_outputs: int, dtype: DTypeLike) -> Model:
    return causal.language_model(
        lambda *, train: _Network(llama, num_outputs, dtype, train),
        num_layers=llama.num_layers,
        num_key_value_heads=llama.num_key_value_heads,
        head_width=llama.head_width,
        max_length=llama.max_length,
        dtype=dtype,
    )


class _Network(nn.Module):
    """Embeddings, layers, norm and head; see `kd.models.causal.language_model`."""

    llama: Llama
    num_outputs: int
    dtype: DTypeLike
    train: bool

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "b n"],
        token_mask: Bool[Array, "b n"],
        cache: causal.KeyValueCache | None = None,
        last: Int[Array, "b"] | None = None,
    ) -> tuple[Outputs, causal.KeyValueCache | None]:
        llama = self.llama
        positions, sees = causal.positions_and_sight(
            token_mask, cache, llama.sliding_window
        )
        frequencies = rotary.frequencies(
            llama.head_width, llama.rotary_base, llama.rotary_scaling
        )
        turn = rotary.turn(positions, frequencies, causal.exact(self.dtype))

        def table(name: str) -> Float[Array, "rows d"]:
            normal = nn.initializers.normal(llama.initializer_stddev)
            return self.param(name, normal, (llama.vocab_size, llama.width))

        embeddings = table("embeddings")
        x = embeddings[tokens].astype(self.dtype)
        layer = nn.remat(_Layer) if llama.remat else _Layer
        hidden, attention, layers = [x], [], []
        for i in range(llama.num_layers):
            x, probs, kept = layer(llama, self.dtype, self.train, name=f"layer_{i}")(
                x, positions, sees, turn, None if cache is None else cache.layers[i]
            )
            hidden.append(x)
            attention.append(probs)
            layers.append(kept)
        x = hidden[-1] = _norm(llama, self.dtype, name="norm")(x)
        if last is not None:
            x = x[jnp.arange(len(x)), last][:, None]
        rows = embeddings if llama.tied else table("head")
        head = causal.head(x, rows[: self.num_outputs], self.dtype)
        if cache is not None:
            length = cache.length + token_mask.sum(axis=1)
            cache = causal.KeyValueCache(tuple(layers), length)
        outputs = Outputs(head.logits(), tuple(hidden), tuple(attention), head=head)
        return outputs, cache


class _Layer(nn.Module):
    """Self-attention, then a gated MLP; each reads a norm and adds to the stream."""

    llama: Llama
    dtype: DTypeLike
    train: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        positions: Int[Array, "b n"],
        sees: Bool[Array, "b n s"],
        turn: tuple[Float[Array, "b n half"], Float[Array, "b n half"]],
        cached: tuple[Float[Array, "b s g e"], Float[Array, "b s g e"]] | None,
    ) -> tuple[
        Float[Array, "b n d"],
        Float[Array, "b h n s"],
        tuple[Float[Array, "b s g e"], Float[Array, "b s g e"]],
    ]:
        llama = self.llama

        def dense(width: int, name: str, *, use_bias: bool = False) -> nn.Dense:
            return linear(
                width,
                stddev=llama.initializer_stddev,
                dtype=self.dtype,
                use_bias=use_bias,
                name=name,
            )

        def norm(name: str) -> nn.RMSNorm:
            return _norm(llama, self.dtype, name=name)

        def heads(number: int, name: str) -> Float[Array, "b n h e"]:
            width = number * llama.head_width
            flat = dense(width, name, use_bias=llama.attention_bias)(y)
            return flat.reshape(*y.shape[:2], number, llama.head_width)

        y = norm("attention_norm")(x)
        query = heads(llama.num_heads, "query")
        key = heads(llama.num_key_value_heads, "key")
        value = heads(llama.num_key_value_heads, "value")
        if llama.query_key_norm:
            query, key = norm("query_norm")(query), norm("key_norm")(key)
        key, value = causal.remember(cached, rotary.turned(key, turn), value, positions)
        mixed, probs = causal.attend(
            rotary.turned(query, turn),
            key,
            value,
            sees,
            nn.Dropout(llama.attention_dropout, deterministic=not self.train),
        )
        x = x + dense(llama.width, "attention_out")(mixed)

        y = norm("mlp_norm")(x)
        y = nn.silu(dense(llama.mlp_width, "gate")(y)) * dense(llama.mlp_width, "up")(y)
        return x + dense(llama.width, "down")(y), probs, (key, value)


def _norm(llama: Llama, dtype: DTypeLike, *, name: str) -> nn.RMSNorm:
    return nn.RMSNorm(epsilon=llama.norm_epsilon, dtype=dtype, name=name)
