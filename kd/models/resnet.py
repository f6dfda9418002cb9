"""Residual networks for small images, after He et al. (2016), section 4.2."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from kd.errors import UserError
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

    Raises:
        ValueError: there is no stage, a size is not a positive whole number, or
            `num_groups` does not divide a width.

    Source: he2016resnet.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    num_blocks: int = 3
    num_groups: int = 4
    stem_stride: int = 1

    def __post_init__(self) -> None:
        if not self.widths or any(
            not isinstance(width, int) or width < 1 for width in self.widths
        ):
            raise ValueError(
                "widths needs positive numbers of channels, whole ones, got "
                f"{self.widths}"
            )
        for name in ("num_blocks", "num_groups", "stem_stride"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{name} is {value}, must be at least 1, a whole number"
                )
        for width in self.widths:
            if width % self.num_groups:
                raise ValueError(
                    f"width {width} is not divisible by num_groups {self.num_groups}"
                )

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
            return network.init(key, _images(batch))["params"]

        def apply(params: Params, batch: Batch, key: PRNGKeyArray | None) -> Outputs:
            del key  # Nothing in it is random.
            return cast(Outputs, network.apply({"params": params}, _images(batch)))

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


def _images(batch: Batch) -> Float[Array, "b h w c"]:
    if "inputs" not in batch or batch["inputs"].ndim != 4:
        found = f"inputs {batch['inputs'].shape}" if "inputs" in batch else "no inputs"
        raise UserError(f"a ResNet reads images [b, h, w, c], and a batch has {found}")
    return batch["inputs"]


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
            width, stride = resnet.widths[0], resnet.stem_stride
            x = _conv(width, self.dtype, stride=stride, name="stem")(x)
            x = nn.relu(_norm(resnet, self.dtype, name="stem_norm")(x))
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
        y = _conv(self.width, self.dtype, stride=self.stride, name="conv_0")(x)
        y = nn.relu(_norm(self.resnet, self.dtype, name="norm_0")(y))
        y = _conv(self.width, self.dtype, name="conv_1")(y)
        y = _norm(self.resnet, self.dtype, name="norm_1")(y)
        if x.shape != y.shape:
            x = _conv(
                self.width, self.dtype, size=1, stride=self.stride, name="shortcut"
            )(x)
            x = _norm(self.resnet, self.dtype, name="shortcut_norm")(x)
        return nn.relu(x + y)


def _conv(
    width: int, dtype: DTypeLike, *, size: int = 3, stride: int = 1, name: str
) -> nn.Conv:
    # Without a bias, since a norm follows.
    return nn.Conv(
        width,
        (size, size),
        strides=(stride, stride),
        padding=size // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=nn.initializers.he_normal(),
        name=name,
    )


def _norm(resnet: ResNet, dtype: DTypeLike, *, name: str) -> nn.GroupNorm:
    # E[x^2] - E[x]^2, the fast variance, cancels.
    return nn.GroupNorm(
        resnet.num_groups, dtype=dtype, use_fast_variance=False, name=name
    )
