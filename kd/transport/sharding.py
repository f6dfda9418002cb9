"""One transport problem over all devices: who holds what, and what moves.

A batch is sharded by its examples, so every device has some rows (student) and some
columns (teacher) of the problem. It keeps its rows and gets all columns; from then on
only sums over rows cross devices, one number a column and iteration, and in the log
domain as many maxima (`kd.transport.rows`). With d devices, n rows, m columns and v
classes each device sends, by the usual ring algorithms, (d - 1) / d times

    m v                       numbers to gather all columns, or
    (n + m) v / d  +  n m     to exchange rows for classes, add up the cost from parts
                              of the classes, and hand every device its rows of it;
    2 m                       for a sum over rows, or a maximum.

The second way is taken where it moves less: where classes are many more than examples.
In a gradient with respect to the rows it moves n v / d + n m more, the first nothing.
Where the columns have a gradient too, as in `SinkhornDivergence` of the student with
itself, theirs goes back the way they came.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Shaped

from kd.transport.cost import Cost
from kd.types import Head, TopLogits

AXIS = "data"
"""The axis of the mesh that batches are sharded over."""

Problem = Callable[..., tuple[Float[Array, "b"], dict[str, Array]]]


def solve_groups(problem: Problem, *arrays: Array, num_groups: int) -> tuple[Any, Any]:
    """Applies `problem` to groups of neighbouring rows, over the devices there are.

    Under a mesh (`jax.set_mesh`) with an axis "data" of several devices that divide the
    rows, one group is spread over all of them, and several are handed out whole if
    the devices divide their number. Anything else is left to the compiler.

    Args:
        problem: takes the arrays of one group and `axis`, the mesh axis that their
            rows are sharded over or None; returns a value for each row, and scalars
            that are the same on all devices.
        arrays: [b, ...] each.
        num_groups: how many.

    Returns:
        The values [b], and the scalars of every group, [num_groups].

    Raises:
        ValueError: the rows cannot be cut into so many equal groups.
    """
    num_rows = len(arrays[0])
    if num_rows % num_groups:
        raise ValueError(
            f"a batch of {num_rows} cannot be cut into {num_groups} equal groups"
        )
    num_devices = devices_of_mesh()
    if num_devices > 1 and num_groups == 1 and num_rows % num_devices == 0:
        whole = functools.partial(problem, axis=AXIS)
        values, scalars = _over_devices(whole, scalars=PartitionSpec())(*arrays)
        return values, jax.tree.map(lambda scalar: scalar[None], scalars)
    if num_devices > 1 and num_groups > 1 and num_groups % num_devices == 0:
        mine = functools.partial(_each_group, problem, num_groups // num_devices)
        return _over_devices(mine, scalars=PartitionSpec(AXIS))(*arrays)
    return _each_group(problem, num_groups, *arrays)


def _each_group(problem, num_groups, *arrays):
    if num_groups == 1:
        values, scalars = problem(*arrays, axis=None)
        return values, jax.tree.map(lambda scalar: scalar[None], scalars)
    split = [a.reshape(num_groups, -1, *a.shape[1:]) for a in arrays]
    values, scalars = jax.vmap(functools.partial(problem, axis=None))(*split)
    return values.reshape(-1), scalars


def _over_devices(function, *, scalars):
    rows = PartitionSpec(AXIS)
    # Copies of the columns differ in type from what JAX knows to be equal everywhere,
    # so it cannot check them; the tests do.
    return jax.shard_map(
        function, in_specs=rows, out_specs=(rows, scalars), check_vma=False
    )


def devices_of_mesh() -> int:
    """That share the rows of the batch that is computed with, by the mesh there is."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or AXIS in mesh.manual_axes:
        return 1
    return dict(mesh.shape).get(AXIS, 1)


def specs_of_head(head: Head | TopLogits) -> Head | TopLogits:
    """What `jax.shard_map` is told of predictions: every device has its rows."""
    rows = jax.tree.map(lambda _: PartitionSpec(AXIS), head.rows)
    return jax.tree.map(lambda _: PartitionSpec(), head).with_rows(rows)


def gather(columns: Shaped[Array, "m *v"], axis: str | None) -> Shaped[Array, "k *v"]:
    """All columns, given those on this device."""
    if axis is None:
        return columns
    return jax.lax.all_gather(columns, axis, tiled=True)


def own(
    everywhere: Shaped[Array, "k"], num: int, axis: str | None
) -> Shaped[Array, "n"]:
    """The `num` entries of this device, of what all devices hold."""
    if axis is None:
        return everywhere
    start = num * jax.lax.axis_index(axis)
    return jax.lax.dynamic_slice_in_dim(everywhere, start, num)


def cost_of_rows(
    cost: Cost, x: Float[Array, "n v"], y: Float[Array, "m v"], axis: str | None
) -> Float[Array, "n k"]:
    """The cost of the rows on this device to all columns, those of others included."""
    if axis is None:
        return cost(x, y)
    num_devices = jax.lax.axis_size(axis)
    num_rows, num_columns = num_devices * len(x), num_devices * len(y)
    if not by_classes(cost, num_rows, num_columns, x.shape[1], num_devices):
        return cost(x, gather(y, axis))
    x, y = (_rows_for_classes(points, num_devices, axis) for points in (x, y))
    return jax.lax.psum_scatter(cost(x, y), axis, scatter_dimension=0, tiled=True)


def by_classes(
    cost: Cost, num_rows: int, num_columns: int, num_classes: int, num_devices: int
) -> bool:
    """Whether exchanging rows for classes moves less, there and back."""
    there = (num_rows + num_columns) * num_classes / num_devices
    back = num_rows * num_classes / num_devices
    moved = there + back + 2 * num_rows * num_columns
    return cost.adds_up_over_classes and moved < num_columns * num_classes


def _rows_for_classes(points, num_devices, axis):
    # Classes that are 0 on both sides cost nothing.
    points = jnp.pad(points, ((0, 0), (0, -points.shape[1] % num_devices)))
    return jax.lax.all_to_all(points, axis, split_axis=1, concat_axis=0, tiled=True)
