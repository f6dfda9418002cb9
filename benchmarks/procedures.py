"""Training steps of every procedure against offline KD, and of two against PyTorch.

The rows of `procedures_images`, whose steps are built as runs build them, on a batch of
random images of Fashion-MNIST's size: what runs cache of teachers comes with the batch,
and those that a view asks run in the step. Mixup beside KD, and deep mutual learning,
are also written in PyTorch; first both are shown to have the same losses and gradients.

    python -m benchmarks.procedures
"""

import argparse
import concurrent.futures
import dataclasses
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import measure
from kd import catalog
from kd.compare.table import Table
from kd.data.sample import Sampled
from kd.errors import UserError
from kd.experiment import Experiment
from kd.features import class_means
from kd.models.resnet import ResNet
from kd.networks.answers import vector_of
from kd.procedures.procedure import Setting
from kd.procedures.step import view_key
from kd.train.mesh import data_mesh, replicate, shard_batch
from kd.types import Metrics, Params, answers_name
from kd.views import Beside, Mixup
from kd.views.questions import questions

_TOLERANCE = 1e-4
_SHAPE = (28, 28, 1)
_OURS = "this project"
_BASE = "KL"
_IN_PYTORCH = {"mixup": ("student", "teacher"), "DML": ("student", "peer")}
"""Rows of the table, and the networks that are handed over."""


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = measure.parser("procedures", __doc__)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10, help="in a block")
    parser.add_argument("--blocks", type=int, default=21)
    parser.add_argument("--rows", nargs="+", help="only these")
    parser.add_argument(
        "--no-compile", action="store_true", help="leave torch.compile out"
    )
    parser.add_argument(
        "--no-pytorch", action="store_true", help="leave PyTorch out altogether"
    )
    options = parser.parse_args()
    return measure.write_result(options.output, lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Races the procedures, then two of them with PyTorch."""
    chosen = rows(options.rows)
    trainers, compile_seconds = prepared(chosen, options.batch_size)
    examples = [options.batch_size * options.steps] * options.blocks
    contenders = {
        name: _blocks(trainer, options.steps) for name, trainer in trainers.items()
    }
    races = [measure.race(contenders, examples, title="every procedure")]
    result: dict[str, Any] = {
        "title": "Training steps of procedures",
        "aim": 1.0,
        "setting": {
            "data": f"random images {_SHAPE}, batches of {options.batch_size}",
            "steps_in_block": options.steps,
            "host": "the batch is on the device beforehand on both sides",
        },
        "seconds_of_first_steps": compile_seconds,
        "races": races,
    }
    if options.no_pytorch:
        return result
    differences, trials = {}, {}
    for name in filter(chosen.get, _IN_PYTORCH):
        differences[name], race, trials[name] = _against_pytorch(
            name, chosen[name], trainers[name], options, examples
        )
        races.append(race)
    return result | {"largest_differences": differences, "trials": trials}


def rows(only: Sequence[str] | None = None) -> dict[str, Experiment]:
    """Plain KD, first, and every procedure; of two phases the first.

    Those at equal queries take the same steps as their rows, or fewer networks.
    """
    table = catalog.load("procedures_images", "mini", catalog.TABLES)
    assert isinstance(table, Table)
    found = {
        name: row.start.recipe if row.start and row.start.recipe else row
        for name, row in table.rows.items()
        if "," not in name
    }
    found = {_BASE: found.pop(_BASE)} | found
    if only:
        if unknown := {*only} - {*found}:
            raise UserError(f"no row {min(unknown)!r}; there are {', '.join(found)}")
        found = {name: row for name, row in found.items() if name in {_BASE, *only}}
    return found


def random_batch(experiment: Experiment, batch_size: int) -> dict[str, np.ndarray]:
    """Images and labels, and logits of every teacher."""
    random = np.random.default_rng(0)
    num_classes = experiment.data.target.num_outputs
    batch = {
        "inputs": random.normal(size=(batch_size, *_SHAPE)).astype(np.float32),
        "labels": random.integers(0, num_classes, batch_size, dtype=np.int32),
        "mask": np.ones(batch_size, bool),
        "index": np.arange(batch_size, dtype=np.int32),
    }
    shape = (batch_size, num_classes)
    return batch | {
        answers_name(i): random.normal(0, 2, shape).astype(np.float32)
        for i in range(len(experiment.teachers))
    }


class Trainer:
    """A row's step as `kd.run` builds it, with its state and a batch.

    Args:
        experiment: the row.
        batch_size: examples.
        optimizer: another than the row's.
    """

    def __init__(
        self,
        experiment: Experiment,
        batch_size: int,
        optimizer: optax.GradientTransformation | None = None,
    ):
        mesh = data_mesh()
        data, procedure = experiment.data, experiment.procedure
        batch = random_batch(experiment, batch_size)
        assert experiment.student is not None
        self.networks: dict[str, tuple[ResNet, Params]] = {}
        models = {}
        for i, (name, sizes) in enumerate(
            procedure.learners(experiment.student).items()
        ):
            models[name], self.networks[name] = _fresh(data, sizes, i, batch)
        teachers, teacher_params = [], []
        for i, teacher in enumerate(experiment.teachers):
            assert teacher.recipe is not None
            model, sized = _fresh(data, teacher.recipe.student, 100 + i, batch)
            teachers.append(model)
            teacher_params.append(sized[1])
            if len(experiment.teachers) == 1:
                self.networks["teacher"] = sized
                batch |= _embeddings(experiment, model, sized[1], batch)
        sampled = data.with_sample_of(Sampled()).sample(batch["labels"], data.target)
        answers = [batch[answers_name(i)] for i in range(len(teachers))]
        batch |= procedure.annotate(sampled, answers)
        drawn = data.sample(batch["labels"], data.target)
        if not drawn.is_whole:
            batch |= drawn.of_batch(batch["index"], batch["mask"])
        self.batch = batch
        num_outputs = data.target.num_outputs
        live = experiment.asks_teachers and questions(
            experiment.view, experiment.losses, batch, num_outputs
        )
        training = procedure.build(
            Setting(
                learners=models,
                teachers=tuple(teachers) if live else (None,) * len(teachers),
                combine=experiment.combine,
                objective=experiment.objective,
                optimizer=optimizer or experiment.optimizer.build(experiment.num_steps),
                num_steps=experiment.num_steps,
                view=experiment.view,
                mesh=mesh,
            )
        )
        learners = {name: self.networks[name][1] for name in models}
        self._teachers = replicate(tuple(teacher_params) if live else (), mesh)
        self._batch = shard_batch(batch, mesh)
        key = jax.random.key(0)
        state = training.init(key, learners, self._teachers, self._batch)
        self.state = replicate(state, mesh)
        step: Any = training.step
        self._step = step.lower(self.state, self._teachers, self._batch).compile()

    def step(self) -> Metrics:
        self.state, metrics = self._step(self.state, self._teachers, self._batch)
        return metrics

    def run(self, num_steps: int) -> None:
        """Takes so many steps, and returns when the last one is done."""
        for _ in range(num_steps):
            self.step()
        jax.block_until_ready(self.state)

    def drawn(self, view: Mixup) -> tuple[float, np.ndarray]:
        """Lambda and the other example of each, as the next step draws them."""
        num = len(self.batch["labels"])
        probe = self.batch | {"labels": np.arange(num, dtype=np.int32)}
        probe = jax.tree.map(jnp.asarray, probe)
        mixed = view(view_key(self.state.key, self.state.step), probe)
        return float(mixed["label_weight"][0]), np.array(mixed["mixed_labels"])


def _fresh(data: Any, sizes: Any, seed: int, batch: Mapping[str, Any]) -> Any:
    """A network as it is built, and its sizes with its initial parameters."""
    model = data.build(sizes)
    params = jax.device_get(jax.jit(model.init)(jax.random.key(seed), dict(batch)))
    return model, (sizes, params)


def _embeddings(
    experiment: Experiment, model: Any, params: Params, batch: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """What runs cache of the only teacher's hidden states."""
    if not experiment.asks_teachers or experiment.live_readers:
        return {}
    on_device = jax.tree.map(jnp.asarray, dict(batch))
    outputs = jax.jit(model.apply)(params, on_device, None)
    found = {}
    for one in experiment.embeddings:
        vectors = np.asarray(vector_of(one)(outputs, on_device))
        if one.of == "class":
            labels = batch["labels"]
            vectors = class_means(vectors, labels, int(labels.max()) + 1)[labels]
        found[one.name] = vectors
    return found


def prepared(
    chosen: Mapping[str, Experiment], batch_size: int
) -> tuple[dict[str, Trainer], dict[str, float]]:
    """Compiled and warm trainers, and the seconds that took."""

    def prepare(name: str) -> tuple[Trainer, float]:
        trainers = []

        def first() -> None:
            trainers.append(Trainer(chosen[name], batch_size))
            trainers[0].run(2)

        seconds = measure.timed(first)
        return trainers[0], seconds

    # XLA compiles one program on one core.
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = dict(zip(chosen, pool.map(prepare, chosen), strict=True))
    return (
        {name: trainer for name, (trainer, _) in found.items()},
        {name: seconds for name, (_, seconds) in found.items()},
    )


def _blocks(trainer: Any, num_steps: int) -> Callable[[int], None]:
    return lambda _: trainer.run(num_steps)


def _against_pytorch(
    name: str,
    row: Experiment,
    ours: Trainer,
    options: argparse.Namespace,
    examples: list[int],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Largest differences, the race, and the trials that the fastest is chosen by."""
    try:
        from benchmarks.pytorch_procedures import Trainer as Theirs
        from benchmarks.pytorch_procedures import Variant
    except ImportError as error:
        raise UserError(
            f"{error.name} is missing; make bench installs it, and --no-pytorch "
            "leaves it out"
        ) from error
    measure.prepare_pytorch()
    two_batches = [False, True] if name == "mixup" else [False]
    variants = [
        Variant(channels_last=last, joined=joined)
        for last in (False, True)
        for joined in two_batches
    ]

    def theirs(ours: Trainer, row: Experiment, variant: Variant) -> Theirs:
        networks = {which: ours.networks[which] for which in _IN_PYTORCH[name]}
        return Theirs(row, networks, ours.batch, variant)

    differences = check(
        row,
        options.batch_size,
        {
            str(variant): lambda ours, row, v=variant: theirs(ours, row, v)
            for variant in variants
        },
    )
    everyone = {
        f"PyTorch, {variant}": theirs(ours, row, variant) for variant in variants
    }
    tried = {
        which: _blocks(trainer, options.steps) for which, trainer in everyone.items()
    }
    for block in tried.values():
        block(0)
    trials = measure.race(tried, examples[:3], title=f"{name}, trials")
    fastest = min(tried, key=lambda which: statistics.median(trials["seconds"][which]))
    contenders = {_OURS: _blocks(ours, options.steps), fastest: tried[fastest]}
    if not options.no_compile:
        variant = dataclasses.replace(variants[[*tried].index(fastest)], compiled=True)
        compiled = _blocks(theirs(ours, row, variant), options.steps)
        compiled(0)
        contenders[f"PyTorch, {variant}"] = compiled
    return differences, measure.race(contenders, examples, title=name), trials


def check(
    row: Experiment,
    batch_size: int,
    others: Mapping[str, Callable[[Trainer, Experiment], Any]],
) -> dict[str, dict[str, float]]:
    """Both sides from the same weights, on the same batch: they must not part.

    Args:
        row: what is trained; at its full rate from the start, so that the optimizer
            is checked, too.
        batch_size: examples.
        others: make the other side of ours, by their names.

    Returns:
        By these names the largest relative differences: of a first step's gradients,
        array by array, and of the losses and gradient norms of four steps.

    Raises:
        UserError: one of them is larger than 1e-4.
    """
    recipe = dataclasses.replace(row.optimizer, warmup=0.0)
    row = dataclasses.replace(row, optimizer=recipe)
    mixing = row.view.view if isinstance(row.view, Beside) else None

    def followed(trainer: Trainer, num_steps: int) -> list[tuple[Any, Metrics]]:
        """What steps have drawn and what they say."""
        steps = []
        for _ in range(num_steps):
            drawn = trainer.drawn(mixing) if isinstance(mixing, Mixup) else None
            steps.append((drawn, jax.device_get(trainer.step())))
        return steps

    # A step at rate 1 moves every array by its gradient.
    descending = Trainer(row, batch_size, optax.sgd(1.0))
    before = jax.device_get(descending.state.params)
    ((drawn, _),) = followed(descending, 1)
    after = jax.device_get(descending.state.params)
    moved = jax.tree.map(np.subtract, before, after)
    ours = Trainer(row, batch_size)
    steps = followed(ours, 4)
    found = {}
    for which, make in others.items():
        theirs = make(ours, row)
        theirs.backward(drawn)
        apart = [
            _apart(gradients, learner.network.of(moved[name]))
            for name, learner in theirs.learners.items()
            if (gradients := learner.network.gradients())
        ]
        found[which] = {"gradients": max(apart), "loss": 0.0, "grad_norm": 0.0}
        for drawn_there, mine in steps:
            other = theirs.step(drawn_there)
            for name in ("loss", "grad_norm"):
                relative = abs(float(other[name]) / float(mine[name]) - 1)
                found[which][name] = max(found[which][name], relative)
        for name, relative in found[which].items():
            if not relative <= _TOLERANCE:  # also if it is NaN
                raise UserError(
                    f"{name} of PyTorch ({which}): {relative:.1e} off ours, more than "
                    f"{_TOLERANCE:.0e}; nothing was timed"
                )
    return found


def _apart(theirs: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]) -> float:
    """Largest difference, relative to the largest number of a network."""
    largest = max(np.abs(array).max() for array in theirs.values())
    return max(
        float(np.abs(ours[path] - theirs[path]).max() / largest) for path in theirs
    )


if __name__ == "__main__":
    sys.exit(main())
