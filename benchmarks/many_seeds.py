"""Seeds in one program, one after the other, and in processes of their own.

Training steps of the mini student of `sst2_sinkd`, and of the student of `gtzan_kd` on
random features of GTZAN's sizes, as a run takes them: every seed in its own order, with
dropout, text padded to the widest of the seeds at a step. The teachers' logits are
random and come with the batch. Each process of JOBS has its share of the seeds, and
trains them one after the other.

    python -m benchmarks.many_seeds --data-dir ../shared/data/glue
"""

import argparse
import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import measure
from kd import catalog
from kd.data import sources
from kd.data.arrays import Arrays, Normalization, Normalized
from kd.data.pipeline import TrainingBatches
from kd.data.stacked import StackedBatches
from kd.data.task import Split
from kd.errors import UserError
from kd.experiment import Experiment
from kd.models.bert import Bert
from kd.procedures.procedure import Setting
from kd.train import stacked
from kd.train.mesh import data_mesh, replicate, shard_batch
from kd.types import Architecture, Training

_TOLERANCE = 1e-4
_CHECKED_STEPS = 5
_GTZAN = (802, 57)
"""Rows of train and features."""

TOGETHER = "one program"
ALONE = "one after the other"


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = measure.parser("many_seeds", __doc__)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=[*PROBLEMS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 5, 20])
    parser.add_argument("--blocks", type=int, default=11)
    parser.add_argument("--steps", type=int, default=20, help="of a seed in a block")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    # Several processes share an accelerator; it is no matter to a CPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return measure.write_result(options.output, lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Shows that losses agree, then lets the ways to train take turns."""
    races, apart, warm, data = [], {}, {}, []
    for name in options.problems:
        problem = PROBLEMS[name](options.data_dir)
        data.append(f"{name}: {problem.origin}")
        for num_seeds in options.seeds:
            title = f"{name}, {num_seeds} seeds"
            apart[title] = check(problem, num_seeds)
            blocks = options.blocks * options.steps
            seeds = [*range(num_seeds)]
            begun = time.perf_counter()
            contenders = {
                TOGETHER: runner(problem, [seeds], options.steps, blocks),
                ALONE: runner(problem, [[s] for s in seeds], options.steps, blocks),
            }
            warm[title] = time.perf_counter() - begun
            with processes(name, num_seeds, options) as several:
                contenders[f"{options.processes} processes"] = several
                examples = num_seeds * options.steps * problem.experiment.batch_size
                races.append(
                    measure.race(contenders, [examples] * options.blocks, title=title)
                )
    return {
        "title": "Seeds in one program, against one after the other and processes",
        "setting": {
            "data": "; ".join(data),
            "steps_in_block": options.steps,
            "num_devices": jax.device_count(),
            "platform": jax.default_backend(),
        },
        "largest_differences": {"loss": apart},
        "seconds_of_first_steps": warm,
        "races": races,
    }


class Problem(NamedTuple):
    """What is trained."""

    experiment: Experiment
    network: Architecture
    split: Split
    origin: str

    def batches(self, seed: int) -> TrainingBatches:
        """Of one seed, with logits of a teacher."""
        shape = (len(self.split), self.experiment.data.target.num_outputs)
        logits = np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)
        size, num_devices = self.experiment.batch_size, jax.device_count()
        rows = -(-size // num_devices) * num_devices
        return TrainingBatches(
            self.split, batch_size=size, rows=rows, seed=seed,
            answers={"teacher_logits": logits},
        )  # fmt: skip

    def training(self, num_seeds: int) -> Training:
        """Of so many seeds at once."""
        experiment = self.experiment
        mesh = stacked.mesh_of(num_seeds, data_mesh())
        setting = Setting(
            learners={"student": experiment.data.build(self.network)},
            teachers=(None,),
            objective=experiment.objective,
            optimizer=experiment.optimizer.build(1000),
            mesh=mesh if num_seeds == 1 else None,
        )
        training = experiment.procedure.build(setting)
        return stacked.vmapped(training, num_seeds, mesh)


def sst2(data_dir: str | None) -> Problem:
    """The mini student of `sst2_sinkd`."""
    experiment = measure.mini_experiment(data_dir)
    corpus = sources.load(experiment.data)
    with tempfile.TemporaryDirectory() as folder:
        data = experiment.data.prepare(corpus, pathlib.Path(folder))
    assert isinstance(experiment.student, Bert)
    bert = dataclasses.replace(experiment.student, vocab_size=data.vocab_size)
    return Problem(experiment, bert, data.train, corpus.origin)


def gtzan(data_dir: str | None) -> Problem:
    """The student of `gtzan_kd`; a step takes as long whatever the numbers are."""
    del data_dir
    experiment = catalog.load("gtzan_kd", "mini")
    random = np.random.default_rng(0)
    inputs = random.normal(size=_GTZAN).astype(np.float32)
    labels = random.integers(0, 10, len(inputs)).astype(np.int32)
    split = Normalized(Arrays(inputs, labels), Normalization.of(inputs))
    assert experiment.student is not None
    return Problem(experiment, experiment.student, split, "random features")


PROBLEMS: dict[str, Callable[[str | None], Problem]] = {
    "sst2 mini": sst2,
    "gtzan": gtzan,
}


class Trainer:
    """Some seeds in one program, or one alone."""

    def __init__(self, problem: Problem, seeds: Sequence[int]):
        self.mesh = stacked.mesh_of(len(seeds), data_mesh())
        every_seed = [problem.batches(seed) for seed in seeds]
        self.batches = (
            every_seed[0] if len(seeds) == 1 else StackedBatches(tuple(every_seed))
        )
        training = problem.training(len(seeds))
        model = problem.experiment.data.build(problem.network)
        init = jax.jit(model.init)

        def begun(seed: int, batches: TrainingBatches) -> Any:
            example = replicate(batches[0], self.mesh)
            first = {"student": init(jax.random.key(seed), example)}
            key = jax.random.fold_in(jax.random.key(seed), 1)
            return training.init(key, first, (), example)

        self.state = stacked.stack(list(map(begun, seeds, every_seed)), self.mesh)
        self.step = training.step

    def on_device(self, start: int, stop: int) -> list[Any]:
        """The batches of some steps."""
        return [shard_batch(self.batches[i], self.mesh) for i in range(start, stop)]

    def run(self, batches: Sequence[Any]) -> list[Any]:
        """Takes a step on each, and returns the losses when the last one is done."""
        losses = []
        for batch in batches:
            self.state, metrics = self.step(self.state, (), batch)
            losses.append(metrics["loss"])
        jax.block_until_ready(self.state)
        return losses


def runner(
    problem: Problem, parts: Sequence[Sequence[int]], num_steps: int, stop: int
) -> Callable[[int], None]:
    """A contender that trains its parts, one after the other; each shape is compiled.

    Args:
        problem: what is trained.
        parts: seeds, those of one part in one program.
        num_steps: of every seed in a block.
        stop: steps of all blocks.
    """
    trainers = [Trainer(problem, part) for part in parts]
    batches = [trainer.on_device(0, stop) for trainer in trainers]
    for trainer, its in zip(trainers, batches, strict=True):
        shapes = {
            tuple(x.shape for x in jax.tree.leaves(batch)): batch for batch in its
        }
        trainer.run([*shapes.values()])

    def block(i: int) -> None:
        for trainer, its in zip(trainers, batches, strict=True):
            trainer.run(its[i * num_steps : (i + 1) * num_steps])

    return block


def check(problem: Problem, num_seeds: int) -> float:
    """The losses of first steps together and alone.

    Returns:
        The largest relative difference.

    Raises:
        UserError: it is larger than 1e-4.
    """
    together = Trainer(problem, range(num_seeds))
    found = np.array(together.run(together.on_device(0, _CHECKED_STEPS)))
    largest = 0.0
    for seed in range(num_seeds):
        alone = Trainer(problem, [seed])
        expected = np.array(alone.run(alone.on_device(0, _CHECKED_STEPS)))
        apart = np.max(np.abs(found.reshape(len(found), -1)[:, seed] / expected - 1))
        largest = max(largest, float(apart))
    if not largest <= _TOLERANCE:
        raise UserError(
            f"losses of seeds together and alone are {largest:.1e} apart, more than "
            f"{_TOLERANCE:.0e}; nothing was timed"
        )
    return largest


@contextlib.contextmanager
def processes(
    name: str, num_seeds: int, options: argparse.Namespace
) -> Iterator[Callable[[int], None]]:
    """A contender of several processes, which wait between blocks."""
    spawn = multiprocessing.get_context("spawn")
    workers = []
    for k in range(options.processes):
        ours, theirs = spawn.Pipe()
        seeds = [*range(k, num_seeds, options.processes)]
        process = spawn.Process(target=_work, args=(theirs, name, seeds, options))
        process.start()
        theirs.close()
        workers.append((process, ours))

    def block(i: int) -> None:
        for _, pipe in workers:
            pipe.send(i)
        for _, pipe in workers:
            pipe.recv()

    try:
        for _, pipe in workers:
            pipe.recv()  # that it is warm
        yield block
    finally:
        for process, pipe in workers:
            pipe.close()
            process.join()


def _work(pipe: Any, name: str, seeds: list[int], options: argparse.Namespace) -> None:
    problem = PROBLEMS[name](options.data_dir)
    block = runner(
        problem, [[s] for s in seeds], options.steps, options.blocks * options.steps
    )
    pipe.send("warm")
    with contextlib.suppress(EOFError):
        while True:
            block(pipe.recv())
            pipe.send("done")


if __name__ == "__main__":
    sys.exit(main())
