"""One mesh axis, "data": batches are sharded over it, states replicated."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_mesh() -> Mesh:
    """All devices in a row.

    `Auto` axes leave the layout of intermediates to the compiler; JAX's default,
    `Explicit`, breaks Linen's embedding lookup and OTT.
    """
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Splits every array of the batch over the devices by its leading axis."""
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of every array on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
