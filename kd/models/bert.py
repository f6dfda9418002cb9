"""BERT with a classification head: the encoder of Devlin et al. (2019).

Numerically the `BertForSequenceClassification` of Hugging Face's transformers; its
weights come and go through `kd.models.bert_checkpoint`. DistilBERT and RoBERTa are
variants of it.
"""

import dataclasses
import functools
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from kd.errors import UserError
from kd.models.dropout import Dropout
from kd.models.linear import linear
from kd.models.sizes import check_positive, check_rates
from kd.types import Batch, ComputeDtype, Model, Outputs, Params

Variant = Literal["bert", "distilbert", "roberta"]
_OFFSET = {"bert": 0, "distilbert": 0, "roberta": 2}
"""Rows of the table of positions before that of position 0; nothing reads them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bert:
    """Sizes of a BERT encoder; the defaults are those of bert-base-uncased.

    Args:
        vocab_size: number of token ids.
        num_layers: transformer layers.
        width: of the residual stream; every head sees `width / num_heads` of it.
        num_heads: attention heads per layer.
        mlp_width: hidden units of each layer's MLP.
        max_length: positions with an embedding, the longest sequence in tokens.
        num_segments: segment ids ("token types"), 2 for sentence pairs; where there is
            1, as in RoBERTa, or 0, as in DistilBERT, batches may have segments all the
            same, which say nothing.
        dropout: rate on embeddings, residual branches and the pooled output.
        attention_dropout: rate on attention probabilities.
        head_dropout: rate on the pooled output; `dropout` if None.
        layer_norm_epsilon: added to the variance in layer norms.
        initializer_stddev: of the normal distribution that fresh weights come from.
        variant: which head, and which names in a checkpoint: a BERT pools the first
            token by tanh(W x + b), a DistilBERT by relu, and a RoBERTa, whose table of
            positions has two unread rows, drops out before W, too.

    Raises:
        ValueError: a size is not positive, a rate is outside [0, 1), `num_heads`
            does not divide `width`, or the segments are not those of the variant.

    Source: devlin2019bert; sanh2019distilbert, liu2019roberta.
    """

    vocab_size: int = 30522
    num_layers: int = 12
    width: int = 768
    num_heads: int = 12
    mlp_width: int = 3072
    max_length: int = 512
    num_segments: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    head_dropout: float | None = None
    layer_norm_epsilon: float = 1e-12
    initializer_stddev: float = 0.02
    variant: Variant = "bert"

    def __post_init__(self) -> None:
        if self.variant not in _OFFSET:
            raise ValueError(
                f"variant is {self.variant!r}, must be one of {', '.join(_OFFSET)}"
            )
        sizes = [field.name for field in dataclasses.fields(self) if field.type is int]
        if self.variant == "distilbert":
            sizes.remove("num_segments")
            if self.num_segments:
                raise ValueError(
                    f"num_segments is {self.num_segments}, must be 0 in a distilbert"
                )
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        rates = ["dropout", "attention_dropout"]
        has_own = self.head_dropout is not None
        check_rates(self, *rates, *["head_dropout"] * has_own)
        if self.variant == "distilbert" and self.layer_norm_epsilon != 1e-12:
            raise ValueError(
                f"layer_norm_epsilon is {self.layer_norm_epsilon}; a distilbert has "
                "1e-12, and no place for another in its files"
            )
        check_positive(self, "layer_norm_epsilon", "initializer_stddev")
        if self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} is not divisible by num_heads {self.num_heads}"
            )

    @classmethod
    def base(cls, **changes: Any) -> "Bert":
        """BERT-base: 12 layers of width 768, 109 M parameters."""
        return cls(**{**_sizes(num_layers=12, width=768), **changes})

    @classmethod
    def six_layer(cls, **changes: Any) -> "Bert":
        """The first half of BERT-base: 6 layers of width 768, 67 M parameters."""
        return cls(**{**_sizes(num_layers=6, width=768), **changes})

    @classmethod
    def medium(cls, **changes: Any) -> "Bert":
        """8 layers of width 512, 41 M parameters, by Turc et al. (2019)."""
        return cls(**{**_sizes(num_layers=8, width=512), **changes})

    @classmethod
    def small(cls, **changes: Any) -> "Bert":
        """4 layers of width 512, 29 M parameters, by Turc et al. (2019)."""
        return cls(**{**_sizes(num_layers=4, width=512), **changes})

    @classmethod
    def mini(cls, **changes: Any) -> "Bert":
        """4 layers of width 256, 11 M parameters, by Turc et al. (2019)."""
        return cls(**{**_sizes(num_layers=4, width=256), **changes})

    @classmethod
    def tiny(cls, **changes: Any) -> "Bert":
        """2 layers of width 128, 4.4 M parameters, by Turc et al. (2019)."""
        return cls(**{**_sizes(num_layers=2, width=128), **changes})

    @classmethod
    def distilbert(cls, **changes: Any) -> "Bert":
        """DistilBERT: 6 layers of width 768, 66 M parameters."""
        sizes = cls.six_layer(num_segments=0, head_dropout=0.2, variant="distilbert")
        return dataclasses.replace(sizes, **changes)

    @classmethod
    def roberta_base(cls, **changes: Any) -> "Bert":
        """RoBERTa-base: 12 layers of width 768, 125 M parameters."""
        sizes = cls.base(
            vocab_size=50265,
            num_segments=1,
            layer_norm_epsilon=1e-5,
            variant="roberta",
        )
        return dataclasses.replace(sizes, **changes)

    @classmethod
    def distilroberta(cls, **changes: Any) -> "Bert":
        """DistilRoBERTa: 6 layers of width 768, 82 M parameters."""
        return cls.roberta_base(**{"num_layers": 6, **changes})

    @property
    def position_offset(self) -> int:
        """Rows of the table of positions before that of position 0."""
        return _OFFSET[self.variant]

    def build(
        self,
        num_classes: int,
        *,
        compute_dtype: ComputeDtype = "float32",
    ) -> Model:
        """The network with a fresh head, as two pure functions.

        A batch holds `tokens` [b, n] int32, `token_mask` [b, n] bool (True where the
        token is real) and optionally `segments` [b, n] int32 (default 0). A row
        without any real token is allowed and gives finite, meaningless outputs. Where
        a batch is padded further than alone it would be, `width` [b] int32 says to how
        many tokens it would be, in every row: dropout then is what it would be.

        Args:
            num_classes: v, the width of the logits.
            compute_dtype: of matrix products and of `Outputs.hidden`. Parameters,
                softmax, layer-norm statistics and logits are float32 in any case.

        Returns:
            The model; its `apply` raises `UserError` if n exceeds `max_length`.
        """
        network = _Classifier(self, num_classes, jnp.dtype(compute_dtype))

        def init(key: PRNGKeyArray, batch: Batch) -> Params:
            del batch  # No parameter's shape depends on it.
            tokens = jnp.zeros((1, 1), jnp.int32)
            return network.init(key, tokens, tokens == 0, None, train=False)["params"]

        def apply(params: Params, batch: Batch, key: PRNGKeyArray | None) -> Outputs:
            if "tokens" not in batch:
                raise UserError("a Bert reads text, and a batch has no tokens")
            num_tokens = batch["tokens"].shape[1]
            if num_tokens > self.max_length:
                raise UserError(
                    f"a batch has {num_tokens} tokens per example; "
                    f"the model has positions for at most {self.max_length}"
                )
            outputs = network.apply(
                {"params": params},
                batch["tokens"],
                batch["token_mask"],
                batch.get("segments"),
                batch["width"][0] if "width" in batch else None,
                train=key is not None,
                rngs=None if key is None else {"dropout": key},
            )
            return cast(Outputs, outputs)

        return Model(init, apply)


def _sizes(*, num_layers: int, width: int) -> dict[str, Any]:
    return {
        "num_layers": num_layers,
        "width": width,
        "num_heads": width // 64,
        "mlp_width": 4 * width,
    }


class _Classifier(nn.Module):
    """Encoder, pooler and classification head."""

    bert: Bert
    num_classes: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "b n"],
        token_mask: Bool[Array, "b n"],
        segments: Int[Array, "b n"] | None,
        width: Int[Array, ""] | None = None,
        *,
        train: bool,
    ) -> Outputs:
        bert = self.bert
        x = _Embeddings(bert, self.dtype, name="embeddings")(
            tokens, segments, width, train=train
        )
        hidden, attention = [x], []
        for i in range(bert.num_layers):
            layer = _Layer(bert, self.dtype, name=f"layer_{i}")
            x, probs = layer(x, token_mask, width, train=train)
            hidden.append(x)
            attention.append(probs)
        rate = bert.dropout if bert.head_dropout is None else bert.head_dropout
        first = x[:, 0]
        if bert.variant == "roberta":
            first = Dropout(rate, deterministic=not train)(first)
        pool = nn.relu if bert.variant == "distilbert" else nn.tanh
        pooled = pool(_dense(bert, bert.width, self.dtype, name="pooler")(first))
        pooled = Dropout(rate, deterministic=not train)(pooled)
        logits = _dense(bert, self.num_classes, jnp.float32, name="classifier")(pooled)
        return Outputs(logits, tuple(hidden), tuple(attention))


class _Embeddings(nn.Module):
    """Sum of token, segment and position embeddings, normalised."""

    bert: Bert
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "b n"],
        segments: Int[Array, "b n"] | None,
        width: Int[Array, ""] | None,
        *,
        train: bool,
    ) -> Float[Array, "b n d"]:
        bert = self.bert

        def table(name: str, num_rows: int) -> Float[Array, "rows d"]:
            return self.param(name, _normal(bert), (num_rows, bert.width))

        x = table("tokens", bert.vocab_size)[tokens]
        if bert.num_segments:
            told = segments is not None and bert.num_segments > 1
            x += table("segments", bert.num_segments)[segments if told else 0]
        offset = bert.position_offset
        positions = table("positions", bert.max_length + offset)
        x += positions[offset : offset + tokens.shape[1]]
        x = _layer_norm(bert, self.dtype, name="norm")(x)
        return Dropout(bert.dropout, deterministic=not train)(x, width)


class _Layer(nn.Module):
    """Self-attention, then an MLP; each is added to its input and normalised."""

    bert: Bert
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        token_mask: Bool[Array, "b n"],
        width: Int[Array, ""] | None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b h n n"]]:
        bert = self.bert
        dense = functools.partial(_dense, bert, dtype=self.dtype)
        layer_norm = functools.partial(_layer_norm, bert, self.dtype)
        dropout = Dropout(bert.dropout, deterministic=not train)

        heads = (*x.shape[:2], bert.num_heads, bert.width // bert.num_heads)
        query = dense(bert.width, name="query")(x).reshape(heads)
        key = dense(bert.width, name="key")(x).reshape(heads)
        value = dense(bert.width, name="value")(x).reshape(heads)
        scores = jnp.einsum(
            "bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32
        )
        # The mask is finite, so that a row without any real token gives uniform
        # attention and zero gradients rather than NaN.
        probs = jax.nn.softmax(
            jnp.where(
                token_mask[:, None, None, :],
                scores / heads[-1] ** 0.5,
                jnp.finfo(jnp.float32).min,
            )
        )
        kept = Dropout(bert.attention_dropout, deterministic=not train)(
            probs, width, token_axes=(2, 3)
        )
        mixed = jnp.einsum("bhqk,bkhd->bqhd", kept.astype(self.dtype), value)
        mixed = dense(bert.width, name="attention_out")(mixed.reshape(x.shape))
        x = layer_norm(name="attention_norm")(x + dropout(mixed, width))

        y = nn.gelu(dense(bert.mlp_width, name="mlp_in")(x), approximate=False)
        y = dense(bert.width, name="mlp_out")(y)
        return layer_norm(name="mlp_norm")(x + dropout(y, width)), probs


def _normal(bert: Bert) -> nn.initializers.Initializer:
    return nn.initializers.normal(bert.initializer_stddev)


def _dense(bert: Bert, width: int, dtype: DTypeLike, *, name: str) -> nn.Dense:
    return linear(width, stddev=bert.initializer_stddev, dtype=dtype, name=name)


def _layer_norm(bert: Bert, dtype: DTypeLike, *, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(
        epsilon=bert.layer_norm_epsilon,
        dtype=dtype,
        use_fast_variance=False,  # E[x^2] - E[x]^2 cancels; and is no faster here.
        name=name,
    )
