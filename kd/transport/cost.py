"""Ground costs between every row of one array and every row of another.

Each takes [n, v] and [m, v] to [n, m] and holds nothing larger than its arguments
and its result, in value and gradient. Half precision is lifted to float32.

L1 and the general p have no matrix product to lean on. Written as one broadcast
[n, m, v] and its gradient they run 50 times below the speed of the processor, so
they are summed in tiles, see `_tiled_sum`.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Terms added up in registers before the sum goes back to memory. From 16 on XLA's CPU
# compiler vectorises the loop; with 8 it is 7 times slower.
_TILE = 16


class Cost(abc.ABC):
    """A cost of moving one point to another; subclasses are frozen dataclasses."""

    largest_between_probabilities: ClassVar[float] = float("inf")
    """A bound for rows that are at least 0 and sum to 1, if there is one. It lets
    the solver choose a faster way; too small a number would make it overflow."""
    adds_up_over_classes: ClassVar[bool] = False
    """Whether it is the sum of what it gives for parts of the classes."""

    def __call__(
        self, x: Float[Array, "n v"], y: Float[Array, "m v"]
    ) -> Float[Array, "n m"]:
        """The cost of every row of x to every row of y, in float32 or better."""
        dtype = jnp.promote_types(jnp.promote_types(x.dtype, y.dtype), jnp.float32)
        return self.between(x.astype(dtype), y.astype(dtype))

    @abc.abstractmethod
    def between(
        self, x: Float[Array, "n v"], y: Float[Array, "m v"]
    ) -> Float[Array, "n m"]:
        """The formula, on arrays of one dtype."""


@dataclasses.dataclass(frozen=True)
class L1(Cost):
    """cost_ij = sum_v |x_iv - y_jv|, at most 2 between probabilities.

    The subgradient 0 is taken where two entries agree.
    """

    largest_between_probabilities = 2.0
    adds_up_over_classes = True

    def between(self, x, y):
        return _l1(x, y)


@dataclasses.dataclass(frozen=True)
class Minkowski(Cost):
    """cost_ij = (sum_v |x_iv - y_jv|^p)^(1/p), at most 2 between probabilities.

    The subgradient 0 is taken where two rows agree, and at p = 1 where two entries
    do. Slower than `L1` by the price of a power per term.

    Args:
        p: finite, at least 1.
    """

    largest_between_probabilities = 2.0
    p: float

    def __post_init__(self) -> None:
        if not 1 <= self.p < float("inf"):
            raise ValueError(f"p must be finite and at least 1, got {self.p}")

    def between(self, x, y):
        return _l1(x, y) if self.p == 1 else _minkowski(x, y, self.p)


@dataclasses.dataclass(frozen=True)
class SquaredL2(Cost):
    """cost_ij = sum_v (x_iv - y_jv)^2, at most 2 between probabilities.

    By one matrix product, |x|^2 + |y|^2 - 2 x y, so its absolute error is the
    rounding of |x|^2 + |y|^2, also between points that nearly agree.
    """

    largest_between_probabilities = 2.0
    adds_up_over_classes = True

    def between(self, x, y):
        squares = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None, :]
        cost = squares - 2 * _inner_products(x, y)
        # Rounding can make it negative; the gradient is that of the formula even so.
        return cost + jax.lax.stop_gradient(jnp.maximum(cost, 0) - cost)


@dataclasses.dataclass(frozen=True)
class Cosine(Cost):
    """cost_ij = 1 - x_i . y_j / (|x_i| |y_j|), from 0 to 2; 1 where a row is 0.

    At most 1 between probabilities.
    """

    largest_between_probabilities = 1.0

    def between(self, x, y):
        return 1 - _inner_products(_unit(x), _unit(y))


def _tiled_sum(
    term: Callable[..., Array], *rows: Array, columns: tuple[Array, ...] = ()
) -> Array:
    """sum_t term(a[t], b[t], ..., c[:, t], ...), `term` elementwise, 0 of all zeros.

    A loop over tiles of t; in each, the terms are written out one by one, which
    the compiler turns into one pass over the result. Columns are cut where they lie:
    of a matrix transposed beforehand the compiler computes every entry in the order
    of the transpose, which takes longer than all the rest of a loss.
    """
    length = rows[0].shape[0]
    tile = min(_TILE, length)

    def add_tile(total, start_and_rows):
        start, *parts = start_and_rows
        cut = [jax.lax.dynamic_slice_in_dim(c, start, tile, axis=1) for c in columns]
        terms = (
            term(*(p[t] for p in parts), *(c[:, t] for c in cut)) for t in range(tile)
        )
        return total + sum(terms), None

    result = jax.eval_shape(
        lambda rows, columns: term(*(a[0] for a in rows), *(c[:, 0] for c in columns)),
        rows,
        columns,
    )
    total = jnp.zeros(result.shape, result.dtype)
    if length == 0:
        return total
    if length == tile:
        return add_tile(total, (0, *rows))[0]
    padding = -length % tile
    columns = tuple(jnp.pad(c, [(0, 0), (0, padding)]) for c in columns)
    rows = tuple(
        jnp.pad(a, [(0, padding)] + [(0, 0)] * (a.ndim - 1)).reshape(
            -1, tile, *a.shape[1:]
        )
        for a in rows
    )
    starts = tile * jnp.arange(len(rows[0]))
    return jax.lax.scan(add_tile, total, (starts, *rows))[0]


def _sum_over_columns(
    term: Callable[..., Array],
    x: Float[Array, "n v"],
    y: Float[Array, "m v"],
    *weights: Float[Array, "n m"],
) -> Float[Array, "n v"]:
    """sum_j term(x_iv, y_jv, weight_ij, ...)."""
    if x.shape[1] >= _TILE:
        return _tiled_sum(
            lambda b, *w: term(x, b, *(c[:, None] for c in w)), y, columns=weights
        )
    # So few classes would leave the registers empty: rows are what is contiguous.
    points = x.T
    return _tiled_sum(lambda b, *w: term(points, b[:, None], *w), y, columns=weights).T


def _signed(x, y, magnitude):
    """sign(x - y) magnitude.

    By comparison: of a difference between a number and itself the compiler may leave
    a rounding error, where it fuses the subtraction with what x came from.
    """
    return jnp.where(x > y, magnitude, 0) - jnp.where(x < y, magnitude, 0)


@jax.custom_vjp
def _l1(x, y):
    return _tiled_sum(lambda a, b: jnp.abs(a[:, None] - b[None, :]), x.T, y.T)


def _l1_bwd(residuals, gradient):
    x, y = residuals
    # Where only one is asked for, the compiler drops the other.
    return _pull_l1(x, y, gradient), _pull_l1(y, x, gradient.T)


def _pull_l1(x, y, gradient):
    """dx_iv = sum_j gradient_ij sign(x_iv - y_jv)."""
    return _sum_over_columns(_signed, x, y, gradient)


_l1.defvjp(lambda x, y: (_l1(x, y), (x, y)), _l1_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _minkowski(x, y, p):
    powers = _tiled_sum(lambda a, b: jnp.abs(a[:, None] - b[None, :]) ** p, x.T, y.T)
    return powers ** (1 / p)


def _minkowski_bwd(p, residuals, gradient):
    x, y, cost = residuals
    apart = cost > jnp.finfo(cost.dtype).tiny
    # Ratios to the distance are at most 1: no power of them overflows.
    inverse = jnp.where(apart, 1 / jnp.where(apart, cost, 1), 0)
    return (
        _pull_minkowski(x, y, inverse, gradient, p),
        _pull_minkowski(y, x, inverse.T, gradient.T, p),
    )


def _pull_minkowski(x, y, inverse, gradient, p):
    """dx_iv = sum_j gradient_ij sign(x_iv - y_jv) (|x_iv - y_jv| / cost_ij)^(p-1)."""

    def term(x, y, scale, g):
        return _signed(x, y, g * jnp.abs((x - y) * scale) ** (p - 1))

    return _sum_over_columns(term, x, y, inverse, gradient)


def _minkowski_fwd(x, y, p):
    cost = _minkowski(x, y, p)
    return cost, (x, y, cost)


_minkowski.defvjp(_minkowski_fwd, _minkowski_bwd)


def _inner_products(x, y):
    return jnp.matmul(x, y.T, precision="highest")


def _unit(x):
    square = jnp.sum(x**2, axis=1, keepdims=True)
    return jnp.where(square > 0, x / jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
