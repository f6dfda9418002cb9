"""How much the logits change with a layer: bounds by norms, and slopes at examples.

A bound is of the whole network on any input: the product of the largest singular values
of what follows a layer; ReLU and dropout (off) have 1. A slope is of one example: the
largest singular value of the Jacobian there, so the largest slope of some examples is
at most the Lipschitz constant, and a diagnostic where a bound is wanted.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kd.models.mlp import MLP
from kd.models.resnet import ResNet
from kd.types import Params


def dense_norm(kernel: Float[Any, "d e"]) -> float:
    """The largest singular value of a matrix."""
    return float(np.linalg.norm(np.asarray(kernel, np.float64), 2))


def convolution_norm(kernel: Float[Any, "i j d e"], size: tuple[int, int]) -> float:
    """A bound on the norm of a convolution with as many zeros around as keep the size.

        max over frequencies of the norm of the kernel's Fourier transform, [d, e]

    which is exact on a torus. On one with room for the zeros the images are part of the
    torus, so this is at least the norm, and nearly it; a stride leaves outputs out.

    Args:
        kernel: odd height and width, then inputs and outputs.
        size: height and width of the images that it reads.

    Source: sedghi2019singular, for the torus.
    """
    kernel = np.asarray(kernel, np.float64)
    torus = tuple(n + k - 1 for n, k in zip(size, kernel.shape[:2], strict=True))
    transform = np.fft.rfft2(kernel, torus, axes=(0, 1))
    return float(np.linalg.norm(transform, 2, axis=(2, 3)).max())


def group_norm_norm(scale: Float[Any, "d"], epsilon: float) -> float:
    """The Lipschitz constant of a normalization: max |scale| / sqrt(epsilon).

    It is met where a group is constant, as far as no group of real images is, so that
    bounds with it are far from what happens.
    """
    return float(np.abs(np.asarray(scale)).max() / np.sqrt(epsilon))


def mlp_bounds(network: MLP, params: Params) -> list[float]:
    """Bounds on the Lipschitz constants of what follows each layer of an MLP.

    Returns:
        Of the inputs, every hidden layer, and the logits (1).
    """
    names = [f"layer_{i}" for i in range(len(network.widths))]
    norms = [dense_norm(params[name]["kernel"]) for name in (*names, "classifier")]
    return _tails(norms)


def resnet_bounds(
    network: ResNet, params: Params, size: tuple[int, int]
) -> list[float]:
    """Bounds on the Lipschitz constants of what follows each layer of a ResNet.

    A block is at most the sum of its shortcut and its branch, a branch the product of
    its convolutions and normalizations.

    Args:
        network: its sizes.
        params: its parameters.
        size: height and width of its inputs.

    Returns:
        Of the inputs, the stem, every stage, the pooled features, and the logits (1).
    """

    def conv_and_norm(module, conv, norm, size):
        return convolution_norm(module[conv]["kernel"], size) * group_norm_norm(
            module[norm]["scale"], nn.GroupNorm.epsilon
        )

    norms = [conv_and_norm(params, "stem", "stem_norm", size)]
    size = _strided(size, network.stem_stride)
    for i in range(len(network.widths)):
        stage = 1.0
        for j in range(network.num_blocks):
            block = params[f"stage_{i}_block_{j}"]
            after = _strided(size, 2 if i > 0 and j == 0 else 1)
            branch = conv_and_norm(block, "conv_0", "norm_0", size)
            branch *= conv_and_norm(block, "conv_1", "norm_1", after)
            shortcut = 1.0
            if "shortcut" in block:
                shortcut = conv_and_norm(block, "shortcut", "shortcut_norm", size)
            stage *= shortcut + branch
            size = after
        norms.append(stage)
    pooling = 1 / np.sqrt(np.prod(size))
    return _tails([*norms, float(pooling), dense_norm(params["classifier"]["kernel"])])


def slopes(
    function: Callable[[Float[Array, "b ..."]], Float[Array, "b v"]],
    points: Float[Any, "n ..."],
) -> Float[np.ndarray, "n"]:
    """The largest singular value of the Jacobian at each of some points.

    Exactly, from all v rows of the Jacobian: networks have few outputs.

    Args:
        function: of a batch; each output row depends on its own input row alone.
        points: where.
    """

    def slope(point):
        jacobian = jax.jacrev(lambda x: function(x[None])[0])(point)
        rows = jacobian.reshape(len(jacobian), -1)
        gram = jnp.matmul(rows, rows.T, precision="highest")
        return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram)[-1], 0))

    # One after the other: a Jacobian is as large as v layers.
    found = jax.jit(lambda x: jax.lax.map(slope, x))(jnp.asarray(points))
    return np.asarray(found)


def _strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    height, width = (-(-n // stride) for n in size)
    return height, width


def _tails(norms: list[float]) -> list[float]:
    """Products of all norms from each on, and of none."""
    return [*np.cumprod(norms[::-1])[::-1].tolist(), 1.0]
