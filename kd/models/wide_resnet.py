"""Wide residual networks, which normalize before they convolve."""

import dataclasses
from typing import Any, cast

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from kd.models.convolutions import check_widths, conv, group_norm, images
from kd.models.sizes import check_rates, check_whole
from kd.types import Batch, ComputeDtype, Model, Outputs, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class WideResNet:
    """Sizes of a wide residual network.

        x + conv(dropout(relu(norm(conv(relu(norm(x)))))))

    A 3 x 3 convolution to 16 channels, three stages of such blocks of `16 widen`, twice
    and four times as many channels, every stage but the first at half height and width,
    a norm, global average pooling and a linear classifier. Where a block changes the
    width, a 1 x 1 convolution of the normalized input takes the place of x.

    As in `ResNet`, group normalization stands for batch normalization.

    Args:
        depth: layers in all, 6 n + 4 for n blocks a stage.
        widen: factor on the channels.
        dropout: rate within a block.
        num_groups: of channels, each normalized together.

    Raises:
        ValueError: the depth is not such a number, a size is not positive, or
            `num_groups` does not divide the channels.

    Source: zagoruyko2016wide.
    """

    depth: int = 16
    widen: int = 2
    dropout: float = 0.0
    num_groups: int = 4

    def __post_init__(self) -> None:
        check_whole(self, "depth", "widen", "num_groups")
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(
                f"depth is {self.depth}, must be 10, 16, 22, ..., 6 n + 4 for n blocks "
                "a stage"
            )
        check_rates(self, "dropout")
        check_widths((_STEM, *self.widths), self.num_groups)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(_STEM * self.widen * factor for factor in (1, 2, 4))

    @property
    def num_blocks(self) -> int:
        """In each stage."""
        return (self.depth - 4) // 6

    @classmethod
    def wrn_40_2(cls, **changes: Any) -> "WideResNet":
        """40 layers, twice as wide, 2.2 M parameters: a usual teacher on CIFAR."""
        return dataclasses.replace(cls(depth=40), **changes)

    @classmethod
    def wrn_16_2(cls, **changes: Any) -> "WideResNet":
        """16 layers, twice as wide, 0.7 M parameters: its usual student."""
        return dataclasses.replace(cls(depth=16), **changes)

    @classmethod
    def wrn_40_1(cls, **changes: Any) -> "WideResNet":
        """40 layers, 0.6 M parameters: its other student."""
        return dataclasses.replace(cls(depth=40, widen=1), **changes)

    def build(
        self, num_classes: int, *, compute_dtype: ComputeDtype = "float32"
    ) -> Model:
        """The network with a fresh head, as two pure functions.

        A batch holds `inputs` [b, h, w, c] float. `Outputs.hidden` has the feature maps
        of the stem and of every stage, [b, h, w, d], before the norm that follows, and
        last what the classifier reads, [b, d].

        Args:
            num_classes: v, the width of the logits.
            compute_dtype: of convolutions and of `Outputs.hidden`; parameters, norm
                statistics and logits are float32 in any case.

        Returns:
            The model, which raises `UserError` for a batch of anything but images.
        """
        network = _Network(self, num_classes, jnp.dtype(compute_dtype))

        def init(key: PRNGKeyArray, batch: Batch) -> Params:
            read = images(batch, "a WideResNet")
            return network.init(key, read, train=False)["params"]

        def apply(params: Params, batch: Batch, key: PRNGKeyArray | None) -> Outputs:
            outputs = network.apply(
                {"params": params},
                images(batch, "a WideResNet"),
                train=key is not None,
                rngs=None if key is None else {"dropout": key},
            )
            return cast(Outputs, outputs)

        return Model(init, apply)


_STEM = 16
"""Channels of the first convolution."""


class _Network(nn.Module):
    sizes: WideResNet
    num_classes: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Outputs:
        sizes = self.sizes
        x = conv(_STEM, self.dtype, name="stem")(x)
        hidden = [x]
        for i, width in enumerate(sizes.widths):
            for j in range(sizes.num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                name = f"stage_{i}_block_{j}"
                block = _Block(sizes, width, stride, self.dtype, name=name)
                x = block(x, train=train)
            hidden.append(x)
        x = nn.relu(group_norm(sizes.num_groups, self.dtype, name="norm")(x))
        x = x.mean(axis=(1, 2))
        hidden.append(x)
        classifier = nn.Dense(self.num_classes, dtype=jnp.float32, name="classifier")
        return Outputs(classifier(x), tuple(hidden))


class _Block(nn.Module):
    sizes: WideResNet
    width: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w d"], *, train: bool
    ) -> Float[Array, "b h2 w2 d2"]:
        groups = self.sizes.num_groups
        y = nn.relu(group_norm(groups, self.dtype, name="norm_0")(x))
        if x.shape[-1] != self.width or self.stride > 1:
            x = conv(
                self.width, self.dtype, size=1, stride=self.stride, name="shortcut"
            )(y)
        y = conv(self.width, self.dtype, stride=self.stride, name="conv_0")(y)
        y = nn.relu(group_norm(groups, self.dtype, name="norm_1")(y))
        y = nn.Dropout(self.sizes.dropout, deterministic=not train)(y)
        return x + conv(self.width, self.dtype, name="conv_1")(y)
