"""Vision transformers, with the distillation token of DeiT by option."""

import dataclasses
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from kd.errors import UserError
from kd.models.convolutions import images
from kd.models.linear import linear
from kd.models.sizes import check_positive, check_rates, check_sizes
from kd.types import Batch, ComputeDtype, Model, Outputs, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViT:
    """Sizes of a vision transformer.

    An image is cut into squares; each is mapped to a vector, a learnt token is put
    before them, positions are added, and the layers of a transformer follow, which
    normalize before attention and MLP rather than after. A linear classifier reads the
    first token, normalized.

    With a distillation token (DeiT) a second token stands after the first, and a
    second classifier reads it, to learn from the teacher what the first one learns from
    labels, see `kd.objective.OfHead`. `Outputs.head_logits` has the logits of both and
    `Outputs.logits` their mean, which is what evaluation reads.

    Args:
        patch_size: height and width of a square, which divide those of the images.
        num_layers, width, num_heads, mlp_width: of the transformer.
        dropout: rate on embeddings and on what each layer adds.
        attention_dropout: rate on attention probabilities.
        distillation_token: whether there is one.
        layer_norm_epsilon, initializer_stddev: as named.

    Raises:
        ValueError: a size is not positive, a rate is outside [0, 1), or the heads do
            not divide the width.

    Source: dosovitskiy2021vit; the distillation token touvron2021deit, section 3.
    """

    patch_size: int = 16
    num_layers: int = 12
    width: int = 192
    num_heads: int = 3
    mlp_width: int = 768
    dropout: float = 0.0
    attention_dropout: float = 0.0
    distillation_token: bool = False
    layer_norm_epsilon: float = 1e-12
    initializer_stddev: float = 0.02

    def __post_init__(self) -> None:
        check_sizes(self)
        check_rates(self, "dropout", "attention_dropout")
        check_positive(self, "layer_norm_epsilon", "initializer_stddev")
        if self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} is not divisible by num_heads {self.num_heads}"
            )

    @classmethod
    def tiny(cls, **changes: Any) -> "ViT":
        """DeiT-Ti: 12 layers of width 192, 5.7 M parameters."""
        return dataclasses.replace(cls(), **changes)

    @classmethod
    def small(cls, **changes: Any) -> "ViT":
        """DeiT-S: 12 layers of width 384, 22 M parameters."""
        return dataclasses.replace(
            cls(width=384, num_heads=6, mlp_width=1536), **changes
        )

    @classmethod
    def base(cls, **changes: Any) -> "ViT":
        """ViT-B and DeiT-B: 12 layers of width 768, 86 M parameters."""
        return dataclasses.replace(
            cls(width=768, num_heads=12, mlp_width=3072), **changes
        )

    @classmethod
    def mini(cls, **changes: Any) -> "ViT":
        """4 layers of width 64 on squares of 4 x 4, for images of 28 or 32 pixels."""
        sizes = cls(patch_size=4, num_layers=4, width=64, num_heads=4, mlp_width=128)
        return dataclasses.replace(sizes, **changes)

    @property
    def num_tokens(self) -> int:
        """Those that are no part of the image."""
        return 2 if self.distillation_token else 1

    def build(
        self, num_classes: int, *, compute_dtype: ComputeDtype = "float32"
    ) -> Model:
        """The network with fresh heads, as two pure functions.

        A batch holds `inputs` [b, h, w, c] float. `Outputs.hidden` has the embedding
        output and the output of every layer, [b, n, d]: the learnt tokens, then the
        squares row by row.

        Args:
            num_classes: v, the width of the logits.
            compute_dtype: of matrix products and of `Outputs.hidden`. Parameters,
                softmax, layer-norm statistics and logits are float32 in any case.

        Returns:
            The model, which raises `UserError` for a batch of anything but images of
            the size that `init` saw.
        """
        network = _Network(self, num_classes, jnp.dtype(compute_dtype))

        def init(key: PRNGKeyArray, batch: Batch) -> Params:
            return network.init(key, self._patches(batch), train=False)["params"]

        def apply(params: Params, batch: Batch, key: PRNGKeyArray | None) -> Outputs:
            patches = self._patches(batch)
            found, told = patches.shape[1], params["embeddings"]["positions"].shape[0]
            if found + self.num_tokens != told:
                raise UserError(
                    f"a batch has images of {found} squares of {self.patch_size} x "
                    f"{self.patch_size}; the model has positions for "
                    f"{told - self.num_tokens}"
                )
            outputs = network.apply(
                {"params": params},
                patches,
                train=key is not None,
                rngs=None if key is None else {"dropout": key},
            )
            return cast(Outputs, outputs)

        return Model(init, apply)

    def _patches(self, batch: Batch) -> Float[Array, "b n p"]:
        """The squares of every image row by row, each its rows one after the other."""
        whole = images(batch, "a ViT")
        (b, h, w, c), size = whole.shape, self.patch_size
        if h % size or w % size:
            raise UserError(
                f"a ViT cuts images into squares of {size} x {size}, which do not fit "
                f"{h} x {w}; set patch_size to a divisor of both"
            )
        cut = whole.reshape(b, h // size, size, w // size, size, c)
        return cut.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, size * size * c)


class _Network(nn.Module):
    """Embeddings, layers, and one or two classifiers."""

    vit: ViT
    num_classes: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, patches: Float[Array, "b n p"], *, train: bool) -> Outputs:
        vit = self.vit
        x = _Embeddings(vit, self.dtype, name="embeddings")(patches, train=train)
        hidden, attention = [x], []
        for i in range(vit.num_layers):
            x, probs = _Layer(vit, self.dtype, name=f"layer_{i}")(x, train=train)
            hidden.append(x)
            attention.append(probs)
        tokens = _layer_norm(vit, self.dtype, name="norm")(x[:, : vit.num_tokens])
        heads = _Heads(vit, self.num_classes, name="classifier")(tokens)
        logits = sum(heads[1:], heads[0]) / len(heads)
        several = heads if len(heads) > 1 else ()
        return Outputs(logits, tuple(hidden), tuple(attention), head_logits=several)


class _Heads(nn.Module):
    """A linear classifier of each learnt token."""

    vit: ViT
    num_classes: int

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b t d"]
    ) -> tuple[Float[Array, "b v"], ...]:
        names = ("label", "distillation")[: self.vit.num_tokens]
        return tuple(
            _dense(self.vit, self.num_classes, jnp.float32, name=name)(tokens[:, i])
            for i, name in enumerate(names)
        )


class _Embeddings(nn.Module):
    """The learnt tokens, then the squares, each with its position added."""

    vit: ViT
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, patches: Float[Array, "b n p"], *, train: bool
    ) -> Float[Array, "b m d"]:
        vit = self.vit
        normal = nn.initializers.normal(vit.initializer_stddev)
        squares = _dense(vit, vit.width, self.dtype, name="patches")(patches)
        tokens = self.param("tokens", normal, (vit.num_tokens, vit.width))
        num_positions = vit.num_tokens + patches.shape[1]
        positions = self.param("positions", normal, (num_positions, vit.width))
        first = jnp.broadcast_to(tokens, (len(patches), *tokens.shape))
        x = jnp.concatenate([first.astype(self.dtype), squares], axis=1)
        x = x + positions.astype(self.dtype)
        return nn.Dropout(vit.dropout, deterministic=not train)(x)


class _Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    vit: ViT
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], *, train: bool
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b h n n"]]:
        vit = self.vit
        dropout = nn.Dropout(vit.dropout, deterministic=not train)
        y = _layer_norm(vit, self.dtype, name="attention_norm")(x)
        heads = (*x.shape[:2], vit.num_heads, vit.width // vit.num_heads)

        def projected(name):
            return _dense(vit, vit.width, self.dtype, name=name)(y).reshape(heads)

        query, key, value = (projected(name) for name in ("query", "key", "value"))
        scores = jnp.einsum(
            "bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32
        )
        probs = jax.nn.softmax(scores / heads[-1] ** 0.5)
        kept = nn.Dropout(vit.attention_dropout, deterministic=not train)(probs)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", kept.astype(self.dtype), value)
        mixed = mixed.reshape(x.shape)
        y = _dense(vit, vit.width, self.dtype, name="attention_out")(mixed)
        x = x + dropout(y)
        y = _layer_norm(vit, self.dtype, name="mlp_norm")(x)
        y = _dense(vit, vit.mlp_width, self.dtype, name="mlp_in")(y)
        y = _dense(vit, vit.width, self.dtype, name="mlp_out")(
            nn.gelu(y, approximate=False)
        )
        return x + dropout(y), probs


def _dense(vit: ViT, width: int, dtype: DTypeLike, *, name: str) -> nn.Dense:
    return linear(width, stddev=vit.initializer_stddev, dtype=dtype, name=name)


def _layer_norm(vit: ViT, dtype: DTypeLike, *, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(
        epsilon=vit.layer_norm_epsilon,
        dtype=dtype,
        use_fast_variance=False,  # E[x^2] - E[x]^2 cancels.
        name=name,
    )
