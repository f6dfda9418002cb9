"""One of several processes that solve one transport problem together.

Called by test_processes.py: process id, number of processes, devices of each, port.
"""

import sys

import jax
import numpy as np

process, num_processes, num_devices, port = map(int, sys.argv[1:])
jax.config.update("jax_num_cpu_devices", num_devices)
jax.config.update("jax_enable_x64", True)
if num_processes > 1:
    jax.distributed.initialize(
        f"127.0.0.1:{port}", num_processes=num_processes, process_id=process
    )

from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from kd.divergences import SinKD
from kd.train.mesh import data_mesh

mesh = data_mesh()
assert mesh.size == num_processes * num_devices
rows = NamedSharding(mesh, PartitionSpec("data"))


@jax.jit
def value_and_gradient(student, teacher, where):
    def total(student):
        losses = loss(student, teacher, where=where)
        return losses.sum(), losses

    (_, losses), gradient = jax.value_and_grad(total, has_aux=True)(student)
    return losses, gradient


for classes in (2, 3, 100):
    # With 3 classes in the log domain.
    loss = SinKD(epsilon=0.02 if classes == 3 else 0.1)
    random = np.random.default_rng(classes)
    student, teacher = random.normal(0, 2, (2, 16, classes))
    whole = student, teacher, np.arange(16) % 5 > 0
    jax.clear_caches()
    expected = value_and_gradient(*whole)
    spread = [
        jax.make_array_from_callback(array.shape, rows, lambda index, a=array: a[index])
        for array in whole
    ]
    with jax.set_mesh(mesh):
        found = value_and_gradient(*spread)
    found = multihost_utils.process_allgather(found, tiled=True)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-14)
print("agreed")
