"""Rotary positions: pairs of features are turned by angles that grow with the position.

Source: su2024roformer, eq. 34.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Rotary frequencies for longer texts: all divided by `factor`.

    Source: chen2023extending.
    """

    factor: float

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        return frequencies / self.factor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Rotary frequencies for longer texts: the low ones divided, high ones kept.

        f' = (1 - s) f / factor + s f
        s = clip((turns - low) / (high - low), 0, 1),  turns = original f / (2 π)

    where `turns` is how often a frequency goes round in a text of the original length.

    Args:
        factor: that low frequencies are divided by.
        low, high: turns up to which, and from which on, a frequency is low, or high.
        original: tokens in the longest texts before.

    Source: dubey2024llama; the formula is that of Meta's code.
    """

    factor: float
    low: float = 1.0
    high: float = 4.0
    original: int = 8192

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        turns = self.original * frequencies / (2 * np.pi)
        share = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return (1 - share) * frequencies / self.factor + share * frequencies


def frequencies(
    width: int, base: float, scaling: LinearScaling | Llama3Scaling | None = None
) -> np.ndarray:
    """base^(-2 i / width) for each pair i of a head so wide, scaled; float64."""
    plain = base ** -(np.arange(0, width, 2) / width)
    return plain if scaling is None else scaling(plain)


def turn(
    positions: Int[Array, "b n"], frequencies: np.ndarray, dtype: DTypeLike
) -> tuple[Float[Array, "b n half"], Float[Array, "b n half"]]:
    """Cosine and sine of the angle that each pair of features is turned by."""
    angles = positions[..., None].astype(dtype) * jnp.asarray(frequencies, dtype)
    return jnp.cos(angles), jnp.sin(angles)


def turned(
    x: Float[Array, "b n h e"],
    turn: tuple[Float[Array, "b n half"], Float[Array, "b n half"]],
) -> Float[Array, "b n h e"]:
    """The features of every head turned; i and i + e/2 are a pair."""
    cos, sin = (each[:, :, None] for each in turn)
    first, second = jnp.split(x, 2, axis=-1)
    both = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(both, axis=-1).astype(x.dtype)
