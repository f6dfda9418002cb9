"""One mesh axis, "data": batches are sharded over it, states replicated."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The given devices, or all there are, in a row.

    `Auto` axes leave the layout of intermediates to the compiler; JAX's default,
    `Explicit`, breaks Linen's embedding lookup and OTT.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Splits every array of the batch over the devices by its leading axis."""
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of every array on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
