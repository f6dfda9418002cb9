"""Costs between predictions that are never there all at once.

    C_ij = cost(p_i, q_j),    p = softmax(s / temperature), q likewise of t

from the hidden states and heads that make the logits s and t, for costs that add up
over classes. The logits of all n rows and of some classes are there at once: n x v
numbers never are, let alone n x n x v. The classes are gone through four times, for

    the largest logit of every row, and the sum of the exponentials;
    the costs;
    going backwards, with p'_iv = dL/dp_iv from the gradient of the costs,
    p_iv p'_iv through the head, and  d_i = sum_v p_iv p'_iv;
    -p_iv d_i through the head.

The third and the fourth together are the gradient of the logits of a softmax, p_iv
(p'_iv - d_i) / temperature; only the second and the third take n x n x v operations.

On a mesh every device takes its share of the classes, for the rows of all: hidden
states are gathered, costs are summed up and every device keeps those of its rows.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.transport.cost import Cost
from kd.transport.sharding import AXIS, devices_of_mesh, gather, specs_of_head
from kd.types import Head

STUDENT, TEACHER = 0, 1


class _Setting(NamedTuple):
    cost: Cost
    pairs: tuple[tuple[int, int], ...]
    num_groups: int
    size: int
    """Classes at once."""


def costs_of_heads(
    cost: Cost,
    student: Head,
    teacher: Head,
    temperature: float | Array,
    *,
    pairs: tuple[tuple[int, int], ...] = ((STUDENT, TEACHER),),
    num_groups: int = 1,
    num_classes: int,
) -> tuple[Float[Array, "n k"], ...]:
    """Costs between all rows of the student and all of the teacher, in every group.

    Args:
        cost: that adds up over classes (`Cost.adds_up_over_classes`).
        student: of n rows, differentiated in its hidden states, kernel and bias, whose
            gradients are summed up in float32 or better.
        teacher: of as many rows and classes; a constant.
        temperature: softens both predictions; a constant.
        pairs: of `STUDENT` and `TEACHER`, whose rows are compared with whose.
        num_groups: of n / k rows each, neighbours; a row is compared with its group.
        num_classes: of which the logits are there at once, on each device.

    Returns:
        For every pair, [n, k]; float32, or float64 if any logits are.

    Raises:
        ValueError: the cost does not add up over classes, the rows cannot be cut into
            so many groups, or fewer classes at once than one.
    """
    if not cost.adds_up_over_classes:
        raise ValueError(f"{cost} needs all classes at once: it is not a sum over them")
    num_rows = len(student.hidden)
    if num_rows % num_groups:
        raise ValueError(
            f"a batch of {num_rows} cannot be cut into {num_groups} equal groups"
        )
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    setting = _Setting(cost, pairs, num_groups, num_classes)
    constants = jax.lax.stop_gradient((teacher, jnp.asarray(temperature)))
    return _costs(setting, student, constants)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _costs(setting, student, constants):
    return _forward(setting, student, constants)[0]


def _forward(setting, student, constants):
    teacher, temperature = constants

    def found(student, teacher, temperature, axis):
        points = tuple(
            _softened(_gathered(head, axis), temperature, setting.size, axis)
            for head in (student, teacher)
        )
        costs = _sum_of_tiles(setting, points, axis)
        return costs, tuple((x.largest, x.log_sum) for x in points)

    rows, everywhere = jax.P(AXIS), jax.P()
    costs, normalizers = _over_devices(
        found, student, (specs_of_head(student), specs_of_head(teacher), everywhere),
        (rows, everywhere),
    )(student, teacher, temperature)  # fmt: skip
    return costs, (student, constants, normalizers)


def _backward(setting, residuals, gradient):
    student, (teacher, temperature), normalizers = residuals

    def found(student, teacher, temperature, normalizers, gradient, axis):
        points = tuple(
            _Softened(_gathered(head, axis), temperature, *normalizer)
            for head, normalizer in zip((student, teacher), normalizers, strict=True)
        )
        everyone = jax.tree.map(lambda x: gather(x, axis), gradient)
        return _pull(setting, points, everyone, axis)

    rows, everywhere = jax.P(AXIS), jax.P()
    heads = specs_of_head(student), specs_of_head(teacher)
    of_head = _over_devices(
        found, student, (*heads, everywhere, everywhere, rows), heads[0]
    )(student, teacher, temperature, normalizers, gradient)  # fmt: skip
    return jax.tree.map(lambda x, like: x.astype(like.dtype), of_head, student), None


_costs.defvjp(_forward, _backward)


def _over_devices(function, student, in_specs, out_specs):
    devices = devices_of_mesh()
    if devices == 1 or len(student.hidden) % devices:
        return functools.partial(function, axis=None)
    return jax.shard_map(
        functools.partial(function, axis=AXIS),
        in_specs=in_specs,
        out_specs=out_specs,
        check_vma=False,
    )


class _Softened(NamedTuple):
    """A head with what makes predictions of its logits."""

    head: Head
    temperature: Array
    largest: Float[Array, "n"]
    """Logit of every row."""
    log_sum: Float[Array, "n"]
    """log sum_v exp((s_iv - largest_i) / temperature)."""


def _softened(head, temperature, size, axis):
    n = len(head.hidden)

    def add(carry, start):
        largest, total = carry
        cut, new = _tile(head, start, size)
        logits = jnp.where(new, cut.logits(), -jnp.inf)
        above = jnp.maximum(largest, jnp.max(logits, axis=1))
        total = total * jnp.exp((largest - _finite(above)) / temperature)
        of_tile = jnp.exp((logits - _finite(above)[:, None]) / temperature)
        return (above, total + jnp.sum(of_tile, axis=1)), None

    dtype = _dtype(head)
    start = jnp.full(n, -jnp.inf, dtype), jnp.zeros(n, dtype)
    starts, size = _starts(head, size, axis)
    (largest, total), _ = jax.lax.scan(
        lambda carry, start: (_like(carry, add(carry, start)[0]), None), start, starts
    )
    if axis is not None:
        everywhere = jax.lax.pmax(largest, axis)
        total = total * jnp.exp((largest - _finite(everywhere)) / temperature)
        largest, total = everywhere, jax.lax.psum(total, axis)
    return _Softened(head, temperature, _finite(largest), jnp.log(total))


def _sum_of_tiles(setting, points, axis):
    """The costs of this device's rows to all."""
    starts, size = _starts(points[STUDENT].head, setting.size, axis)

    def of_tile(start):
        return _between(setting, *(_probabilities(x, start, size)[0] for x in points))

    def add(costs, start):
        return jax.tree.map(jnp.add, costs, of_tile(start)), None

    shapes = jax.eval_shape(of_tile, starts[0])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    costs, _ = jax.lax.scan(add, zeros, starts)
    return _kept_here(costs, axis)


def _pull(setting, points, gradient, axis):
    """The gradient of the student's head; of its hidden states on this device."""
    # Not rounded tile by tile to what the head is stored as.
    points = tuple(x._replace(head=_exact(x.head)) for x in points)
    student, teacher = points
    starts, size = _starts(student.head, setting.size, axis)

    def through_softmax(carry, start):
        total, along = carry
        p, pull_head = _probabilities(student, start, size)
        q, _ = _probabilities(teacher, start, size)
        _, pull_costs = jax.vjp(lambda p: _between(setting, p, q), p)
        (of_p,) = pull_costs(gradient)
        total = _add_tile(total, pull_head(p * of_p), start)
        return (total, along + jnp.sum(p * of_p, axis=1)), None

    def less_the_mean(total, start):
        p, pull_head = _probabilities(student, start, size)
        return _add_tile(total, pull_head(-p * along[:, None]), start), None

    total = jax.tree.map(jnp.zeros_like, student.head)
    zero = jnp.zeros_like(student.log_sum, gradient[0].dtype)
    (total, along), _ = jax.lax.scan(through_softmax, (total, zero), starts)
    if axis is not None:
        along = jax.lax.psum(along, axis)
    total, _ = jax.lax.scan(less_the_mean, total, starts)
    (of_hidden,) = _kept_here((total.hidden,), axis)
    rest = total.replace(hidden=None)
    rest = rest if axis is None else jax.lax.psum(rest, axis)
    return rest.replace(hidden=of_hidden)


def _between(setting, *points):
    def costs(x, y):
        if setting.num_groups == 1:
            return setting.cost(x, y)
        x, y = (z.reshape(setting.num_groups, -1, z.shape[1]) for z in (x, y))
        found = jax.vmap(setting.cost)(x, y)
        return found.reshape(-1, found.shape[-1])

    return tuple(costs(points[i], points[j]) for i, j in setting.pairs)


def _probabilities(
    point: _Softened, start: Array, size: int
) -> tuple[Float[Array, "n size"], Callable[[Array], Head]]:
    """Those of a tile, and the gradient of its head for a gradient of logits.

    The gradient is of z, the logits over the temperature, with the largest held.
    """
    cut, new = _tile(point.head, start, size)
    logits, pull = jax.vjp(lambda cut: cut.logits(), cut)
    scaled = (logits - point.largest[:, None]) / point.temperature
    p = jnp.where(new, jnp.exp(scaled - point.log_sum[:, None]), 0)
    return p, lambda of_z: pull((of_z / point.temperature).astype(logits.dtype))[0]


def _starts(head, size, axis):
    """The first classes of the tiles of this device; and how large these are."""
    devices = 1 if axis is None else jax.lax.axis_size(axis)
    size = min(size, -(-head.num_outputs // devices))
    tiles = -(-head.num_outputs // (size * devices))
    first = 0 if axis is None else tiles * jax.lax.axis_index(axis)
    return size * (first + jnp.arange(tiles)), size


def _tile(head, start, size):
    """The head of so many classes, and which of them are not another tile's.

    The last classes of all, where fewer are left.
    """
    first = _first(head, start, size)
    cut = head.replace(
        kernel=jax.lax.dynamic_slice_in_dim(head.kernel, first, size, axis=1),
        bias=None
        if head.bias is None
        else jax.lax.dynamic_slice_in_dim(head.bias, first, size),
        num_classes=None,
    )
    return cut, first + jnp.arange(size) >= start


def _first(head, start, size):
    return jnp.minimum(start, head.num_outputs - size)


def _add_tile(total, of_tile, start):
    """Adds the gradient of a tile where it belongs."""
    size = of_tile.kernel.shape[1]
    first = _first(total, start, size)

    def added(x, tile, axis):
        before = jax.lax.dynamic_slice_in_dim(x, first, size, axis)
        return jax.lax.dynamic_update_slice_in_dim(x, before + tile, first, axis)

    return total.replace(
        hidden=total.hidden + of_tile.hidden,
        kernel=added(total.kernel, of_tile.kernel, 1),
        bias=None if total.bias is None else added(total.bias, of_tile.bias, 0),
    )


def _gathered(head, axis):
    return head.replace(hidden=gather(head.hidden, axis))


def _kept_here(arrays, axis):
    """Sums over devices, of which each keeps its rows."""
    if axis is None:
        return arrays
    return tuple(
        jax.lax.psum_scatter(x, axis, scatter_dimension=0, tiled=True) for x in arrays
    )


def _exact(head):
    """The same numbers in float32 or better."""
    return jax.tree.map(
        lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), head
    )


def _dtype(head):
    return jax.eval_shape(lambda head: head.logits(), head).dtype


def _finite(largest):
    # Where all classes so far are ruled out.
    return jnp.where(largest > -jnp.inf, largest, 0)


def _like(carry, values):
    return jax.tree.map(lambda x, like: x.astype(like.dtype), values, carry)
