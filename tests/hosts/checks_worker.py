"""One of two processes that disagree on purpose; called by test_checks.py.

    checks_worker.py FOLDER COORDINATOR PROCESS

Prints, a line each, what of every disagreement this process is told.
"""

import dataclasses
import pathlib
import sys
from unittest import mock

sys.path[:0] = [str(pathlib.Path(__file__).parents[i]) for i in (2, 1)]

import conftest
import jax
import numpy as np

from kd import hosts, run
from kd.errors import UserError
from kd.hosts import checks
from kd.train.mesh import data_mesh, gathered, replicate, rows_here, shard_batch

folder, process = pathlib.Path(sys.argv[1]), int(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 2)
hosts.join(hosts.Group(sys.argv[2], 2, process), folder / "log" / str(process))
checks._SEEN = 1.0
tiny = conftest.tiny_experiment()


def told(name, work):
    try:
        found = work()
    except UserError as error:
        found = f"error: {error}"
    hosts.tell(f"{name}: {found}")


def with_seed():
    checks.check(dataclasses.replace(tiny, seed=process), folder)


def with_time():
    with mock.patch.object(checks.time, "time", lambda: 1e9 + 100 * process):
        checks.check(tiny, folder)


def with_devices():
    with mock.patch.object(jax, "local_device_count", lambda: 4 + process):
        checks.check(tiny, folder)


def with_a_small_batch():
    recipe = tiny.teachers[0].recipe
    assert recipe is not None
    alone = dataclasses.replace(recipe, batch_size=3)
    run.run(alone, "small", run.Workspace(folder, "mini", data_mesh(), lambda line: 0))


def first_fails():
    def work():
        raise UserError(f"process {process} cannot")

    hosts.of_first(work)


def rows():
    mesh = data_mesh()
    batch = {"mask": np.arange(8) < 7, "x": np.arange(16.0).reshape(8, 2)}
    here = rows_here(8, mesh)
    assert here is not None
    placed = shard_batch({"mask": batch["mask"], "x": batch["x"][here]}, mesh)
    (x,) = gathered([placed["x"]], mesh)
    np.testing.assert_array_equal(x, batch["x"])
    two = gathered([placed["x"], placed["x"] + 1], mesh)
    np.testing.assert_array_equal(two[1], batch["x"] + 1)
    key = replicate(jax.random.key(3), mesh)
    np.testing.assert_array_equal(
        jax.random.key_data(key), jax.random.key_data(jax.random.key(3))
    )
    assert int(placed["mask"].sum()) == 7
    return here.tolist()


told("alike", lambda: checks.check(tiny, folder))
told("seed", with_seed)
told("clocks", with_time)
told("devices", with_devices)
told("folder", lambda: checks.check(tiny, folder / str(process)))
told("data", lambda: hosts.agree("the data", f"SST-{process}", "find the same"))
told("batch", with_a_small_batch)
told("first", first_fails)
told("then", lambda: hosts.then_others(lambda: process))
told("all", lambda: hosts.of_all(process + 5))
told("rows", rows)
hosts.leave()
