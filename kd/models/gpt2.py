"""GPT-2: the decoder of Radford et al. (2019).

Numerically the `GPT2LMHeadModel` of Hugging Face's transformers; its weights come and
go through `kd.models.gpt2_checkpoint`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from kd.models import causal
from kd.models.linear import linear
from kd.models.sizes import check_positive, check_rates, check_sizes
from kd.types import ComputeDtype, Model, Outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class GPT2:
    """Sizes of a GPT-2; by default those of the smallest one.

        x += attention(norm(x));  x += W_out gelu(W_in norm(x) + b_in) + b_out

    with the tanh form of gelu. The head is the table of embeddings.

    Args:
        vocab_size: token ids with an embedding.
        num_layers: transformer layers.
        width: of the residual stream; every head sees `width / num_heads` of it.
        num_heads: attention heads per layer.
        mlp_width: hidden units of each layer's MLP.
        max_length: positions with an embedding, the longest text in tokens.
        dropout: rate on residual branches.
        embedding_dropout: rate on the sum of embeddings.
        attention_dropout: rate on attention probabilities.
        norm_epsilon: added to the variance in layer norms.
        initializer_stddev: of the normal distribution that fresh weights come from;
            divided by √(2 num_layers) for what is added to the residual stream.
        remat: compute activations inside a layer again for the gradient rather than
            keep them; less memory, a third more time.

    Raises:
        ValueError: a size is not positive, a rate is outside [0, 1), or `num_heads`
            does not divide `width`.

    Source: radford2019language.
    """

    vocab_size: int = 50257
    num_layers: int = 12
    width: int = 768
    num_heads: int = 12
    mlp_width: int = 3072
    max_length: int = 1024
    dropout: float = 0.1
    embedding_dropout: float = 0.1
    attention_dropout: float = 0.1
    norm_epsilon: float = 1e-5
    initializer_stddev: float = 0.02
    remat: bool = False

    def __post_init__(self) -> None:
        check_sizes(self)
        check_rates(self, "dropout", "embedding_dropout", "attention_dropout")
        check_positive(self, "norm_epsilon", "initializer_stddev")
        if self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} is not divisible by num_heads {self.num_heads}"
            )

    @classmethod
    def small(cls, **changes: Any) -> "GPT2":
        """GPT-2: 12 layers of width 768, 124 M parameters."""
        return cls(**changes)

    @classmethod
    def medium(cls, **changes: Any) -> "GPT2":
        """GPT-2 medium: 24 layers of width 1024, 355 M parameters."""
        sizes = cls(num_layers=24, width=1024, num_heads=16, mlp_width=4096)
        return dataclasses.replace(sizes, **changes)

    @classmethod
    def large(cls, **changes: Any) -> "GPT2":
        """GPT-2 large: 36 layers of width 1280, 774 M parameters."""
        sizes = cls(num_layers=36, width=1280, num_heads=20, mlp_width=5120)
        return dataclasses.replace(sizes, **changes)

    @classmethod
    def xl(cls, **changes: Any) -> "GPT2":
        """GPT-2 XL: 48 layers of width 1600, 1.56 G parameters."""
        sizes = cls(num_layers=48, width=1600, num_heads=25, mlp_width=6400)
        return dataclasses.replace(sizes, **changes)

    @classmethod
    def six_layer(cls, **changes: Any) -> "GPT2":
        """DistilGPT2: 6 layers of width 768, 82 M parameters."""
        return dataclasses.replace(cls(num_layers=6), **changes)

    def build(
        self,
        num_classes: int | None = None,
        *,
        compute_dtype: ComputeDtype = "float32",
    ) -> Model:
        """The network as pure functions; its classes are the tokens.

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


def _model(gpt2: GPT2, num_outputs: int, dtype: DTypeLike) -> Model:
    return causal.language_model(
        lambda *, train: _Network(gpt2, num_outputs, dtype, train),
        num_layers=gpt2.num_layers,
        num_key_value_heads=gpt2.num_heads,
        head_width=gpt2.width // gpt2.num_heads,
        max_length=gpt2.max_length,
        dtype=dtype,
    )


class _Network(nn.Module):
    """Embeddings, layers, norm and head; see `kd.models.causal.language_model`."""

    gpt2: GPT2
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
        gpt2 = self.gpt2
        positions, sees = causal.positions_and_sight(token_mask, cache)

        def table(name: str, num_rows: int) -> Float[Array, "rows d"]:
            normal = nn.initializers.normal(gpt2.initializer_stddev)
            return self.param(name, normal, (num_rows, gpt2.width))

        embeddings = table("embeddings", gpt2.vocab_size)
        x = embeddings[tokens] + table("positions", gpt2.max_length)[positions]
        dropout = nn.Dropout(gpt2.embedding_dropout, deterministic=not self.train)
        x = dropout(x.astype(self.dtype))
        layer = nn.remat(_Layer) if gpt2.remat else _Layer
        hidden, attention, layers = [x], [], []
        for i in range(gpt2.num_layers):
            x, probs, kept = layer(gpt2, self.dtype, self.train, name=f"layer_{i}")(
                x, positions, sees, None if cache is None else cache.layers[i]
            )
            hidden.append(x)
            attention.append(probs)
            layers.append(kept)
        x = hidden[-1] = _layer_norm(gpt2, self.dtype, name="norm")(x)
        if last is not None:
            x = x[jnp.arange(len(x)), last][:, None]
        head = causal.head(x, embeddings[: self.num_outputs], self.dtype)
        if cache is not None:
            length = cache.length + token_mask.sum(axis=1)
            cache = causal.KeyValueCache(tuple(layers), length)
        outputs = Outputs(head.logits(), tuple(hidden), tuple(attention), head=head)
        return outputs, cache


class _Layer(nn.Module):
    """Self-attention, then an MLP; each reads a norm and adds to the stream."""

    gpt2: GPT2
    dtype: DTypeLike
    train: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        positions: Int[Array, "b n"],
        sees: Bool[Array, "b n s"],
        cached: tuple[Float[Array, "b s h e"], Float[Array, "b s h e"]] | None,
    ) -> tuple[
        Float[Array, "b n d"],
        Float[Array, "b h n s"],
        tuple[Float[Array, "b s h e"], Float[Array, "b s h e"]],
    ]:
        gpt2 = self.gpt2
        to_stream = gpt2.initializer_stddev / (2 * gpt2.num_layers) ** 0.5

        def dense(width: int, name: str, stddev: float) -> nn.Dense:
            return linear(width, stddev=stddev, dtype=self.dtype, name=name)

        def dropout(rate: float) -> nn.Dropout:
            return nn.Dropout(rate, deterministic=not self.train)

        y = _layer_norm(gpt2, self.dtype, name="attention_norm")(x)
        y = dense(3 * gpt2.width, "query_key_value", gpt2.initializer_stddev)(y)
        heads = (*x.shape[:2], gpt2.num_heads, gpt2.width // gpt2.num_heads)
        query, key, value = (part.reshape(heads) for part in jnp.split(y, 3, axis=-1))
        key, value = causal.remember(cached, key, value, positions)
        mixed, probs = causal.attend(
            query, key, value, sees, dropout(gpt2.attention_dropout)
        )
        mixed = dense(gpt2.width, "attention_out", to_stream)(mixed)
        x = x + dropout(gpt2.dropout)(mixed)

        y = _layer_norm(gpt2, self.dtype, name="mlp_norm")(x)
        y = dense(gpt2.mlp_width, "mlp_in", gpt2.initializer_stddev)(y)
        y = dense(gpt2.width, "mlp_out", to_stream)(nn.gelu(y, approximate=True))
        return x + dropout(gpt2.dropout)(y), probs, (key, value)


def _layer_norm(gpt2: GPT2, dtype: DTypeLike, *, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(
        epsilon=gpt2.norm_epsilon,
        dtype=dtype,
        use_fast_variance=False,  # E[x^2] - E[x]^2 cancels; and is no faster here.
        name=name,
    )
