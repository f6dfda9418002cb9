"""What networks of images share: convolutions, norms, and what they read."""

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from kd.errors import UserError
from kd.types import Batch


def images(batch: Batch, reader: str) -> Float[Array, "b h w c"]:
    """The images of a batch.

    Raises:
        UserError: it has none; names the reader, such as "a ResNet".
    """
    if "inputs" not in batch or batch["inputs"].ndim != 4:
        found = f"inputs {batch['inputs'].shape}" if "inputs" in batch else "no inputs"
        raise UserError(f"{reader} reads images [b, h, w, c], and a batch has {found}")
    return batch["inputs"]


def conv(
    width: int, dtype: DTypeLike, *, size: int = 3, stride: int = 1, name: str
) -> nn.Conv:
    """A convolution that keeps height and width, but for the stride.

    Without a bias, since a norm stands before or after.
    """
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


def group_norm(num_groups: int, dtype: DTypeLike, *, name: str) -> nn.GroupNorm:
    """Group normalization (wu2018group), statistics in float32."""
    # E[x^2] - E[x]^2, the fast variance, cancels.
    return nn.GroupNorm(num_groups, dtype=dtype, use_fast_variance=False, name=name)


def check_widths(widths: tuple[int, ...], num_groups: int) -> None:
    """Raises ValueError unless there are stages, and groups divide each."""
    if not widths or any(not isinstance(width, int) or width < 1 for width in widths):
        raise ValueError(
            f"widths needs positive numbers of channels, whole ones, got {widths}"
        )
    for width in widths:
        if width % num_groups:
            raise ValueError(
                f"width {width} is not divisible by num_groups {num_groups}"
            )
