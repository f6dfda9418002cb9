"""Several runs as one: the arrays of their states with an axis of runs in front.

The runs are of one experiment and differ in their seed. Where there is one alone,
nothing is stacked and its program is what it is.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kd.train.mesh import data_mesh, replicate
from kd.types import Params, Training, TrainState

_AXES: Any = TrainState(step=None, params=0, opt_state=0, key=0, memory=0)
"""Of runs, in a state; the step is the same for all."""


def mesh_of(num: int, mesh: Mesh) -> Mesh:
    """The most devices that so many runs are divided over evenly.

    One alone has them all, its batches being sharded.
    """
    if num == 1:
        return mesh
    used = max(k for k in range(1, mesh.size + 1) if num % k == 0)
    return data_mesh(mesh.devices.flat[:used].tolist())


def vmapped(training: Training, num: int, mesh: Mesh) -> Training:
    """The training of so many runs at once: the same `init`, which is of one.

    Every run is on one device whole. So `training` is built without a mesh.

    Args:
        training: of one run.
        num: of runs.
        mesh: that runs are sharded over, as `mesh_of` has it.
    """
    if num == 1:
        return training
    everywhere, here = (
        NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",))
    )
    shardings = jax.tree.map(
        lambda axis: everywhere if axis is None else here,
        _AXES,
        is_leaf=lambda axis: axis is None,
    )
    step = jax.jit(
        jax.vmap(training.step, in_axes=(_AXES, None, 0), out_axes=(_AXES, 0)),
        donate_argnums=0,
        out_shardings=(shardings, here),
    )
    return Training(training.init, step)


def stack(states: Sequence[TrainState], mesh: Mesh) -> TrainState:
    """The states of all runs as one, on the devices; of one alone, itself."""
    if len(states) == 1:
        return replicate(states[0], mesh)
    here = NamedSharding(mesh, PartitionSpec("data"))

    def together(*leaves: Any) -> Any:
        if jax.dtypes.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
            return jax.device_put(jnp.stack(leaves), here)
        # On the host, where there is room for all of them twice.
        return jax.device_put(np.stack(jax.device_get(leaves)), here)

    stacked = jax.tree.map(together, *states)
    return stacked.replace(step=replicate(states[0].step, mesh))


def params_of(i: int, num: int, params: Params, mesh: Mesh) -> Params:
    """The parameters of one of so many runs, on all devices of `mesh`."""
    return params if num == 1 else replicate(_taken(params, i), mesh)


@jax.jit
def _taken(tree: Any, i: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], tree)
