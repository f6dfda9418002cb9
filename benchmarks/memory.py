"""What `make memory` tells of a training step, and what the step takes.

Each experiment in a process of its own, at scale mini, with networks as they are before
training. The step is compiled from shapes (`kd.run.requirements`), and run once
with arrays that are then let go. Measured is what state, teachers, a batch and three
steps add to that process at their peak: resident pages, which is what a CPU's memory
fills up by. Large blocks are mapped one by one (`MALLOC_MMAP_THRESHOLD_`), so that none
is what an earlier one left.

    python -m benchmarks.memory --data-dir DIR
"""

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import measure
from kd import catalog, config, environment
from kd.run import Workspace, read
from kd.run.assembly import assemble
from kd.run.outline import outline
from kd.run.requirements import requirements
from kd.train.mesh import data_mesh

PROBLEMS: dict[str, tuple[str, ...]] = {
    "fashion_mnist_kd": ("batch_size=1024",),
    "fashion_mnist_rkd": ("batch_size=1024",),
    "fashion_mnist_dml": ("batch_size=1024",),
    "sst2_sinkd": (),
    "wikitext_kd": ("data.tokenizer.size=20000", "batch_size=32"),
    "multi30k_kd": (),
}
"""Experiments, and what is changed of them: WikiText's logits are then large."""

_STEPS = 3


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = measure.parser("memory", __doc__)
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.data_dir)))
        return 0
    return measure.write_result(options.output, lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All experiments, each some times."""
    with tempfile.TemporaryDirectory() as compiled:
        every = {
            name: [
                in_own_process(name, options, compiled) for _ in range(options.repeats)
            ]
            for name in options.only
        }
    return {
        "title": "Memory of a training step, told before it and measured",
        "setting": {"data": "official files"},
        "memory": [
            found[0] | {"measured": [row["measured"] for row in found]}
            for found in every.values()
        ],
    }


def in_own_process(
    name: str, options: argparse.Namespace, compiled: str
) -> dict[str, Any]:
    """What `one` finds in a fresh process; what is compiled is kept for the next."""
    command = [sys.executable, "-m", "benchmarks.memory", "--one", name]
    command += ["--data-dir", options.data_dir] if options.data_dir else []
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True,
        env=os.environ
        | {"MALLOC_MMAP_THRESHOLD_": "65536", "JAX_COMPILATION_CACHE_DIR": compiled},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def one(name: str, data_dir: str | None) -> dict[str, Any]:
    """Bytes told and measured of an experiment, in this process."""
    environment.tune_compiler()
    fields = [*PROBLEMS[name], *([f"data.directory={data_dir}"] if data_dir else [])]
    experiment = config.override(catalog.load(name, "mini"), *fields).sharing_data()
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        workspace = Workspace(place / "runs", "mini", data_mesh(), lambda line: None)
        corpus = read(experiment.data, workspace)
        made_from = outline(experiment, corpus, place, workspace)
    parts = assemble(
        experiment, [0], made_from,
        mesh=workspace.mesh, shared=workspace.shared, say=workspace.say,
    )  # fmt: skip
    found = requirements(experiment, parts, made_from)
    batch = jax.tree.map(jnp.asarray, parts.batches[parts.every_seed[0].widest])
    answers = made_from.answers
    teachers = answers.teachers if answers is not None else ()
    frozen = jax.device_get(
        [
            jax.jit(t.model.init)(jax.random.key(i), batch)
            for i, t in enumerate(teachers)
        ]
    )
    in_step = bool(parts.teachers)
    state = parts.first_state(experiment, None, frozen if in_step else (), batch)
    key, state = state.key, jax.device_get(state.replace(key=None))

    def steps() -> None:
        put = functools.partial(jnp.array, copy=True)
        theirs = jax.tree.map(put, tuple(frozen))
        ours = jax.tree.map(put, state).replace(key=jax.random.clone(key))
        examples = jax.tree.map(put, batch)
        for _ in range(_STEPS):
            ours, metrics = parts.training.step(
                ours, theirs if in_step else (), examples
            )
            jax.block_until_ready((ours, metrics))

    peak = measure.added_at_peak(steps)
    return {
        "experiment": name,
        "fields": list(PROBLEMS[name]),
        "told": found.total,
        "measured": peak,
        "parts": {one.name: one.num_bytes for one in found.device},
    }


if __name__ == "__main__":
    sys.exit(main())
