"""One of several processes that ask a teacher; called by test_kept.py.

kept_worker.py RUNS COORDINATOR PROCESSES PROCESS
"""

import dataclasses
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).parents[i]) for i in (2, 1)]

import conftest
import jax

from kd import hosts, run
from kd.divergences import KL
from kd.networks.kept import TopK
from kd.run.cache import cache
from kd.train.mesh import data_mesh


def asking():
    """Two classes, of texts of two lengths: the larger, and the other as the tail."""
    tiny = conftest.tiny_experiment(widths=(16, 32))
    return dataclasses.replace(tiny, objective=1.0 * KL(), keep=TopK(k=1))


def main(runs, coordinator, processes, process):
    jax.config.update("jax_num_cpu_devices", 1)
    ours = hosts.Group(coordinator, processes, process)
    hosts.join(ours, runs / "hosts" / f"{process}.log", patience=60)
    try:
        kept = cache(asking(), run.Workspace(runs, "mini", data_mesh(), print)).kept
        print(kept[0].arrays["teacher_logits/ids"].shape)
    except Exception as error:
        return hosts.fail_of(error)
    hosts.leave()
    return 0


if __name__ == "__main__":
    runs, coordinator, *numbers = sys.argv[1:]
    sys.exit(main(pathlib.Path(runs), coordinator, *map(int, numbers)))
