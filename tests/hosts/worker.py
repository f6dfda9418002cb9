"""A run of the tiny experiment in one of several processes; called by test_hosts.py.

    worker.py RUNS COORDINATOR PROCESSES PROCESS DEVICES KILL_AT SIGNAL VICTIM

At batch KILL_AT the process VICTIM gets the signal; 0 for never.
"""

import os
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).parents[i]) for i in (2, 1)]
runs, coordinator = pathlib.Path(sys.argv[1]), sys.argv[2]
processes, process, devices, kill_at, number, victim = map(int, sys.argv[3:9])

import conftest
import jax

jax.config.update("jax_num_cpu_devices", devices)

from kd import hosts, run
from kd.train import loop, signals
from kd.train.mesh import data_mesh

place = loop.shard_batch
batches = 0


def counted(batch, mesh):
    global batches
    batches += 1
    if batches == kill_at and process == victim:
        os.kill(os.getpid(), number)
    return place(batch, mesh)


loop.shard_batch = counted
ours = hosts.Group(coordinator, processes, process) if processes > 1 else None
hosts.join(ours, runs / "hosts" / f"{process}.log", patience=60)
tiny = conftest.tiny_experiment(widths=(16, 32))
try:
    run.run(tiny, "tiny", run.Workspace(runs, "mini", data_mesh(), print))
    status = 0
except signals.Interrupted as interrupted:
    hosts.tell(str(interrupted))
    status = interrupted.exit_status
except Exception as error:
    sys.exit(hosts.fail_of(error))
hosts.leave()
sys.exit(status)
