"""A run of the tiny experiment in one of several processes; called by test_hosts.py.

    worker.py RUNS COORDINATOR PROCESSES PROCESS KILL_AT SIGNAL VICTIM DEVICES WHICH

Each process has so many devices; WHICH of `EXPERIMENTS` is a number. At batch KILL_AT
the process VICTIM gets the signal; 0 for never. Of the first step the collective
operations are left in RUNS/collectives.PROCESS.json, with how often the step was
compiled in the end.
"""

import dataclasses
import json
import os
import pathlib
import signal
import sys
import time

sys.path[:0] = [str(pathlib.Path(__file__).parents[i]) for i in (2, 1)]

import conftest
import jax

from kd import hosts, run
from kd.hosts import joining
from kd.run import fit
from kd.train import loop, signals
from kd.train.mesh import data_mesh
from kd.views import Beside, TokenMix

place, train = loop.shard_batch, fit.train
batches = 0


def plain():
    """Labels, KL and SinKD, whose transport couples all examples, in two buckets."""
    return conftest.tiny_experiment(widths=(16, 32))


def mixed():
    """A teacher in the step, asked about a view as well, which mixes all examples."""
    return dataclasses.replace(plain(), answers="live", view=Beside(TokenMix()))


EXPERIMENTS = [plain, mixed]


def main(
    runs, coordinator, processes, process, kill_at, number, victim, devices, which
):
    jax.config.update("jax_num_cpu_devices", devices)

    def counted(batch, mesh, rows=None):
        global batches
        batches += 1
        if batches == kill_at and process == victim:
            os.kill(os.getpid(), number)
        if kill_at and batches >= kill_at and number == signal.SIGTERM:
            time.sleep(0.5)  # JAX looks for the signal once a second.
        return place(batch, mesh, rows)

    loop.shard_batch = counted
    if not kill_at:
        fit.train = recording(runs / f"collectives.{process}.json")
    joining._HEARTBEAT = 10
    ours = hosts.Group(coordinator, processes, process)
    hosts.join(ours, runs / "hosts" / f"{process}.log", patience=60)
    tiny = EXPERIMENTS[which]()
    try:
        run.run(tiny, "tiny", run.Workspace(runs, "mini", data_mesh(), print))
    except signals.Interrupted as interrupted:
        hosts.tell(str(interrupted))
        hosts.leave()
        return interrupted.exit_status
    except Exception as error:
        return hosts.fail_of(error)
    hosts.leave()
    return 0


def recording(path):
    """`train` that also writes what the devices send each other in a step."""

    def trained(training, state, teacher_params, batches, **others):
        batch = place(batches[0], others["mesh"])
        program = training.step.lower(state, teacher_params, batch).compile().as_text()
        lines = conftest.collectives(program)
        state = train(training, state, teacher_params, batches, **others)
        found = {"collectives": lines, "compiled": training.step._cache_size()}
        path.write_text(json.dumps(found))
        return state

    return trained


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])))
