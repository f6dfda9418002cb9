"""One mesh axis, "data": batches are sharded over it, states replicated.

Where several processes train together (`kd.hosts`), the mesh is of the devices of all,
and each process puts on its own what they hold.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, Shaped


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The given devices, or all there are, in a row.

    `Auto` axes leave the layout of intermediates to the compiler; JAX's default,
    `Explicit`, breaks Linen's embedding lookup and OTT.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def rows_here(rows: int, mesh: Mesh) -> Int[np.ndarray, "rows_here"] | None:
    """The rows of a batch that this process puts on its devices; None for all."""
    if not _spans_processes(mesh):
        return None
    return _rows_of(jax.process_index(), rows, mesh)


def shard_batch(batch: Any, mesh: Mesh, rows: int | None = None) -> Any:
    """Splits every array of the batch over the devices by its leading axis.

    Args:
        batch: numpy arrays [rows, ...], or of several processes those of `rows_here`.
        mesh: of the devices.
        rows: of the batch; by default as many as its mask has.
    """
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    if not _spans_processes(mesh):
        return jax.device_put(batch, sharding)
    num_rows = len(batch["mask"]) if rows is None else rows
    ours = _rows_of(jax.process_index(), num_rows, mesh)

    def put(array: Any) -> jax.Array:
        whole = len(array) == num_rows

        def of_device(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(num_rows)
            first = start if whole else int(np.searchsorted(ours, start))
            return array[first : first + stop - start]

        shape = (num_rows, *array.shape[1:])
        return jax.make_array_from_callback(shape, sharding, of_device)

    return jax.tree.map(put, batch)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of every array on every device."""
    sharding = NamedSharding(mesh, PartitionSpec())
    if not _spans_processes(mesh):
        return jax.device_put(tree, sharding)

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array):
            if not leaf.is_fully_addressable:
                return jax.device_put(leaf, sharding)
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                data = put(jax.random.key_data(leaf))
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        array = np.asarray(leaf)
        return jax.make_array_from_callback(
            array.shape, sharding, lambda index: array[index]
        )

    return jax.tree.map(put, tree)


def gathered(
    parts: Sequence[Shaped[jax.Array, "rows ..."]], mesh: Mesh
) -> list[Shaped[np.ndarray, "rows ..."]]:
    """Arrays that are sharded by their rows, whole in every process.

    What other processes hold is sent at once, for all arrays of a shape together.

    Args:
        parts: the arrays.
        mesh: of the devices.
    """
    if not _spans_processes(mesh):
        return [np.asarray(part) for part in parts]
    wholes: list[Any] = [None] * len(parts)
    for shape in dict.fromkeys(part.shape for part in parts):  # of texts, by width
        alike = [i for i, part in enumerate(parts) if part.shape == shape]
        ours = np.stack([_addressable_rows(parts[i]) for i in alike])
        sent = multihost_utils.process_allgather(ours)
        whole = np.empty((len(alike), *shape), ours.dtype)
        for process, theirs in enumerate(sent):
            whole[:, _rows_of(process, shape[0], mesh)] = theirs
        for i, values in zip(alike, whole, strict=True):
            wholes[i] = values
    return wholes


def _spans_processes(mesh: Mesh) -> bool:
    return jax.process_count() > 1 and len(mesh.local_devices) < mesh.size


def _rows_of(process: int, rows: int, mesh: Mesh) -> Int[np.ndarray, "rows_of"]:
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    every = np.arange(rows)
    parts = [
        every[index]
        for device, index in sharding.devices_indices_map((rows,)).items()
        if device.process_index == process
    ]
    return np.sort(np.concatenate(parts))


def _addressable_rows(array: jax.Array) -> Shaped[np.ndarray, "rows_here ..."]:
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start)
    return np.concatenate([np.asarray(shard.data) for shard in shards])
