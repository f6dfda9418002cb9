"""Residual networks for small images, after He et al. (2016), section 4.2."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from kd.models.convolutions import check_widths, conv, group_norm, images
from kd.models.sizes import check_whole
from kd.types import Batch, ComputeDtype, Model, Outputs, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet:
    """Sizes of a residual network.

    A 3 x 3 convolution (the stem), then stages of residual blocks of two 3 x 3
    convolutions each; every stage but the first halves height and width. Global average
    pooling and a linear classifier follow.

    Where the paper has batch normalization this has group normalization (wu2018group):
    the output of an example then depends on this example only, and a forward pass
    changes no statistics, so that `Model.apply` is a pure function, the same in
    training and evaluation and on any number of devices. Shortcuts that change the
    width are 1 x 1 convolutions, the paper's option B.

    Args:
        widths: channels of each stage.
        num_blocks: residual blocks in each stage, so 2 * len(widths) * num_blocks + 2
            layers in all.
        num_groups: of channels, each normalized together; divides every width.
        stem_stride: 2 halves height and width in the stem already.
        stem_width: channels of the stem; None for those of the first stage.

    Raises:
        ValueError: there is no stage, a size is not a positive whole number, or
            `num_groups` does not divide a width.

    Source: he2016resnet.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    num_blocks: int = 3
    num_groups: int = 4
    stem_stride: int = 1
    stem_width: int | None = None

    def __post_init__(self) -> None:
        check_whole(self, "num_blocks", "num_groups", "stem_stride")
        check_widths(self.widths, self.num_groups)
        if self.stem_width is not None:
            check_widths((self.stem_width,), self.num_groups)

    @classmethod
    def resnet56(cls, **changes: Any) -> "ResNet":
        """56 layers, 0.86 M parameters: the paper's for CIFAR-10."""
        return dataclasses.replace(cls(num_blocks=9), **changes)

    @classmethod
    def resnet20(cls, **changes: Any) -> "ResNet":
        """20 layers, 0.27 M parameters: the paper's for CIFAR-10."""
        return dataclasses.replace(cls(num_blocks=3), **changes)

    @classmethod
    def resnet8(cls, **changes: Any) -> "ResNet":
        """8 layers, 78,000 parameters."""
        return dataclasses.replace(cls(num_blocks=1), **changes)

    @classmethod
    def resnet32x4(cls, **changes: Any) -> "ResNet":
        """32 layers, four times as wide, 7.4 M parameters: a usual teacher on CIFAR.

        Source: of tian2020crd, section 4.1; so is the student, `resnet8x4`.
        """
        wide = cls(widths=(64, 128, 256), num_blocks=5, stem_width=32)
        return dataclasses.replace(wide, **changes)

    @classmethod
    def resnet8x4(cls, **changes: Any) -> "ResNet":
        """8 layers, four times as wide, 1.2 M parameters."""
        return cls.resnet32x4(**{"num_blocks": 1, **changes})

    def build(
        self, num_classes: int, *, compute_dtype: ComputeDtype = "float32"
    ) -> Model:
        """The network with a fresh head, as two pure functions.

        A batch holds `inputs` [b, h, w, c] float. `Outputs.hidden` has the feature maps
        of the stem and of every stage, [b, h, w, d], and last what the classifier
        reads: the mean of the last map over h and w, [b, d].

        Args:
            num_classes: v, the width of the logits.
            compute_dtype: of convolutions and of `Outputs.hidden`; parameters, norm
                statistics and logits are float32 in any case.

        Returns:
            The model, which raises `UserError` for a batch of anything but images.
        """
        network = _Network(self, num_classes, jnp.dtype(compute_dtype))

        def init(key: PRNGKeyArray, batch: Batch) -> Params:
            return network.init(key, images(batch, "a ResNet"))["params"]

        def apply(params: Params, batch: Batch, key: PRNGKeyArray | None) -> Outputs:
            del key  # Nothing in it is random.
            return cast(
                Outputs, network.apply({"params": params}, images(batch, "a ResNet"))
            )

        return Model(init, apply)

    def tail(
        self, layer: int, num_classes: int
    ) -> Callable[[Params, Float[Array, "b ..."]], Float[Array, "b v"]]:
        """What follows a layer: (params, its output) -> logits.

        Args:
            layer: its place in `Outputs.hidden`: 0 is the stem.
            num_classes: v.
        """
        network = _Network(self, num_classes, jnp.dtype("float32"))

        def logits(
            params: Params, hidden: Float[Array, "b ..."]
        ) -> Float[Array, "b v"]:
            outputs = network.apply({"params": params}, hidden, first=layer + 1)
            return cast(Outputs, outputs).logits

        return logits


class _Network(nn.Module):
    resnet: ResNet
    num_classes: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], *, first: int = 0) -> Outputs:
        """From the stem on (0), a stage (1, ...), or the classifier after them."""
        resnet = self.resnet
        num_stages = len(resnet.widths)
        hidden = []
        if first == 0:
            width, stride = resnet.stem_width or resnet.widths[0], resnet.stem_stride
            x = conv(width, self.dtype, stride=stride, name="stem")(x)
            x = nn.relu(group_norm(resnet.num_groups, self.dtype, name="stem_norm")(x))
            hidden.append(x)
        for i, width in [*enumerate(resnet.widths)][max(first - 1, 0) :]:
            for j in range(resnet.num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                name = f"stage_{i}_block_{j}"
                x = _Block(resnet, width, stride, self.dtype, name=name)(x)
            hidden.append(x)
        if first <= num_stages + 1:
            x = x.mean(axis=(1, 2))
            hidden.append(x)
        classifier = nn.Dense(self.num_classes, dtype=jnp.float32, name="classifier")
        return Outputs(classifier(x), tuple(hidden))


class _Block(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x))))))."""

    resnet: ResNet
    width: int
    stride: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h2 w2 d2"]:
        y = conv(self.width, self.dtype, stride=self.stride, name="conv_0")(x)
        y = nn.relu(group_norm(self.resnet.num_groups, self.dtype, name="norm_0")(y))
        y = conv(self.width, self.dtype, name="conv_1")(y)
        y = group_norm(self.resnet.num_groups, self.dtype, name="norm_1")(y)
        if x.shape != y.shape:
            x = conv(
                self.width, self.dtype, size=1, stride=self.stride, name="shortcut"
            )(x)
            x = group_norm(self.resnet.num_groups, self.dtype, name="shortcut_norm")(x)
        return nn.relu(x + y)
