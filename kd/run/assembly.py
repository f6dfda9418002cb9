"""What training repeats, put together: networks, batches and the compiled step."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kd.data.pipeline import TrainingBatches
from kd.data.stacked import StackedBatches
from kd.errors import UserError
from kd.experiment import Experiment
from kd.hosts.checks import check_batch
from kd.networks.load import Start
from kd.objective.told import Logits, decisions
from kd.run import beginning
from kd.run.ingredients import Ingredients
from kd.run.program import Learner, program, teachers_in_step
from kd.run.shared import Shared
from kd.train import stacked
from kd.train.mesh import rows_here
from kd.types import Architecture, Batch, Params, Training, TrainState, answers_name


class Assembly(NamedTuple):
    """What training repeats, before any of it has run."""

    networks: dict[str, Architecture]
    """That learn, by their names in the procedure."""
    learners: Mapping[str, Learner]
    training: Training
    teachers: tuple[Params, ...]
    """Parameters of those that run in every step."""
    every_seed: list[TrainingBatches]
    batches: TrainingBatches | StackedBatches
    """Of all seeds as one."""
    num_steps: int
    mesh: Mesh
    """Of the devices that take part."""

    def first_state(
        self,
        experiment: Experiment,
        start: Start | None,
        teacher_params: Any,
        example: Batch,
    ) -> TrainState:
        """The state that a run begins with.

        Args:
            experiment: with the run's seed.
            start: whose weights the student begins with.
            teacher_params: `teachers`, on the devices.
            example: any batch.
        """
        first = beginning.first_params(experiment, self.learners, start, example)
        # Not the key of the initial parameters: dropout has its own randomness.
        key = jax.random.fold_in(jax.random.key(experiment.seed), 1)
        return self.training.init(key, first, teacher_params, example)

    def widest_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the largest batch that there is, over all processes.

        Split over the devices as the loop does: for other places the step would be
        traced again.
        """
        split = NamedSharding(self.mesh, PartitionSpec("data"))
        batch = self.batches[self.every_seed[0].widest]
        rows = len(batch["mask"])
        return {
            name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=split)
            for name, x in batch.items()
        }

    def decisions(self, state: TrainState, teacher_params: Any) -> list[Logits]:
        """What the step decides about its logits, for the widest batch.

        The step is traced for that, and need not be again when it is run. Nothing is
        found where it was traced before.
        """
        with decisions() as found:
            jax.eval_shape(
                self.training.step, state, teacher_params, self.widest_batch()
            )
        return [*dict.fromkeys(found)]


def assemble(
    experiment: Experiment,
    seeds: Sequence[int],
    made_from: Ingredients,
    *,
    mesh: Mesh,
    shared: Shared,
    say: Callable[[str], Any],
) -> Assembly:
    """Puts together what training repeats.

    Args:
        experiment: what to train, but for its seed.
        seeds: of one run, or of several that train in one program.
        made_from: data, teachers and start; of networks shapes are enough.
        mesh: of the devices to train on.
        shared: where functions are kept.
        say: shows a line to the person who waits.

    Raises:
        UserError: batches do not divide, or a schedule does not fit the run.
    """
    num, data = len(seeds), made_from.data
    ours = stacked.mesh_of(num, mesh)
    if num > 1:
        of_all = "" if ours.size == mesh.size else f" of {mesh.size}"
        say(f"{num} seeds in one program, on {ours.size}{of_all} devices")
    every_seed = [
        _batches(
            dataclasses.replace(experiment, seed=seed),
            made_from,
            None if num > 1 else ours,
        )
        for seed in seeds
    ]
    batches = every_seed[0] if num == 1 else StackedBatches(tuple(every_seed))
    num_steps = experiment.num_steps or experiment.num_epochs * batches.per_epoch
    if problems := [*experiment.problems_within(num_steps)]:
        raise UserError(f"objective: {'; '.join(problems)}")
    networks = beginning.networks(experiment, data, made_from.start, say)
    learners, training = program(
        experiment, networks, made_from.answers, num_steps,
        vocab_size=data.vocab_size, end=data.end, num_seeds=num, mesh=mesh,
        shared=shared,
    )  # fmt: skip
    live = tuple(teacher.params for teacher in teachers_in_step(made_from.answers))
    return Assembly(
        networks, learners, training, live, every_seed, batches, num_steps, ours
    )


def _batches(
    experiment: Experiment, made_from: Ingredients, mesh: Mesh | None
) -> TrainingBatches:
    num_devices = mesh.size if mesh else 1
    check_batch(experiment.batch_size, num_devices)
    # Rows divide evenly among devices and micro-batches; what is over is masked.
    unit = num_devices * experiment.num_microbatches
    answers, sample = made_from.answers, made_from.sample
    cached = (answers.train if answers is not None else None) or ()
    told: dict[str, Any] = {answers_name(i): logits for i, logits in enumerate(cached)}
    if answers is not None:
        for one in answers.kept:
            told |= one.arrays
        told |= answers.vectors(experiment.embeddings, sample)
    rows = math.ceil(experiment.batch_size / unit) * unit
    return TrainingBatches(
        made_from.data.train,
        batch_size=experiment.batch_size,
        rows=rows,
        seed=experiment.seed,
        answers={**told, **experiment.procedure.annotate(sample, cached)},
        sample=None if sample.is_whole else sample,
        here=rows_here(rows, mesh) if mesh else None,
    )
