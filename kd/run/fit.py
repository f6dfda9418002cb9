"""Trains the networks of an experiment: of one seed, or of several in one program."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Shaped

from kd import hosts
from kd.data.pipeline import TrainingBatches
from kd.data.stacked import StackedBatches
from kd.data.task import judged
from kd.errors import Diverged, UserError
from kd.experiment import Experiment
from kd.hosts.checks import check_batch
from kd.run import beginning, keep
from kd.run.ingredients import Ingredients
from kd.run.memory import Memory
from kd.run.program import Learner, program, teachers_in_step
from kd.train import stacked
from kd.train.block import Pace
from kd.train.checkpoint import Checkpoints
from kd.train.loop import train
from kd.train.members import Member
from kd.train.mesh import replicate, rows_here, shard_batch
from kd.train.metrics_log import MetricsLog
from kd.train.speed import Speed
from kd.types import Architecture, Model, Params, answers_name
from kd.views.questions import questions

Say = Callable[[str], Any]


class Learnt(NamedTuple):
    """A network that has been trained."""

    network: Architecture
    params: Params
    outputs: Shaped[np.ndarray, "num_final ..."]
    """What it says of `Prepared.final`, as far as the task's target keeps it."""
    model: Model


class Fitted(NamedTuple):
    """What training gave."""

    learnt: dict[str, Learnt]
    """Every network that learned, by its name in the procedure."""
    num_steps: int
    num_queries: int
    """How often a training example was put to a frozen teacher, see `num_queries` of
    `kd.networks.answers.Answers`; resumed or not. Evaluation on dev does not count."""
    speed: Speed
    """Its seconds are those of all seeds that trained together."""
    mesh: Mesh
    """Of the devices that there are."""


Outcome = Callable[[], Fitted] | Diverged | None
"""Of one seed: what training gave, fetched from the devices when it is asked for; why
it diverged; or nothing, where it took no part."""


def fit(
    experiment: Experiment,
    seeds: Sequence[int],
    made_from: Ingredients,
    directories: Sequence[pathlib.Path | None],
    checkpoints_in: pathlib.Path,
    *,
    mesh: Mesh,
    memory: Memory,
    say: Say,
) -> list[Outcome]:
    """Trains to the end, from the newest checkpoint in the folder if there is one.

    Args:
        experiment: what to train, but for its seed.
        seeds: of one run, or of several that train in one program.
        made_from: data, teachers and start.
        directories: of each seed, for `metrics.jsonl`; None for one that was finished
            elsewhere, and trains only since the others' program has it.
        checkpoints_in: folder of the checkpoints of all.
        mesh: of the devices to train on.
        memory: of compiled functions.
        say: shows a line to the person who waits.

    Returns:
        What became of each.

    Raises:
        kd.train.loop.Interrupted: a signal asked to stop; the state is saved.
    """
    num = len(seeds)
    members = [dataclasses.replace(experiment, seed=seed) for seed in seeds]
    data, start, answers = made_from.data, made_from.start, made_from.answers
    ours = stacked.mesh_of(num, mesh)
    if num > 1:
        of_all = "" if ours.size == mesh.size else f" of {mesh.size}"
        say(f"{num} seeds in one program, on {ours.size}{of_all} devices")
    every_seed = [
        _batches(member, made_from, None if num > 1 else ours) for member in members
    ]
    batches = every_seed[0] if num == 1 else StackedBatches(tuple(every_seed))
    num_steps = experiment.num_steps or experiment.num_epochs * batches.per_epoch
    if problems := [*experiment.problems_within(num_steps)]:
        raise UserError(f"objective: {'; '.join(problems)}")
    networks = beginning.networks(experiment, data, start, say)
    learners, training = program(
        experiment, networks, answers, num_steps, vocab_size=data.vocab_size,
        end=data.end, num_seeds=num, mesh=mesh, memory=memory,
    )  # fmt: skip
    live = teachers_in_step(answers)
    teacher_params = replicate(tuple(teacher.params for teacher in live), ours)

    def begun(member: Experiment, batches: TrainingBatches) -> Any:
        example = (shard_batch if num == 1 else replicate)(batches[0], ours)
        first = beginning.first_params(member, learners, start, example)
        # Not the key of the initial parameters: dropout has its own randomness.
        key = jax.random.fold_in(jax.random.key(member.seed), 1)
        return training.init(key, first, teacher_params, example)

    state = stacked.stack(list(map(begun, members, every_seed)), ours)
    target, exported = experiment.data.target, experiment.procedure.exported

    def evaluate(params: Params, i: int) -> dict[str, float]:
        params = stacked.params_of(i, num, params, mesh)
        row = {}
        for name, learner in learners.items():
            outputs = learner.predict(params[name], data.dev)
            prefix = "" if name == exported else f"{name}/"
            for metric in target.watched:
                row[prefix + metric.name] = metric.compute(outputs, judged(data.dev))
            taught = answers.dev if answers is not None else None
            if taught is not None and name == exported:
                for metric in target.watched_fidelity:
                    named = _fidelity_name(metric.name, row)
                    row[named] = metric.compute(outputs, taught)
        if experiment.keep_best and hosts.is_first():
            best = networks[exported], jax.device_get(params[exported])
            if (directory := directories[i]) is not None:
                keep.save_if_best(directory, experiment, *best, row)
        return row

    checkpoints = Checkpoints(checkpoints_in)
    logs = [MetricsLog(d / "metrics.jsonl") if d else None for d in directories]
    taking_part = [
        Member(log, f"seed {seed}") for log, seed in zip(logs, seeds, strict=True)
    ]
    speed = Speed()
    try:
        state = train(
            training,
            state,
            teacher_params,
            batches,
            pace=Pace(
                num_steps=num_steps,
                steps_per_epoch=batches.per_epoch,
                evaluate_every=experiment.evaluate_every or batches.per_epoch,
                save_every=experiment.save_every,
                log_every=experiment.log_every,
            ),
            mesh=ours,
            learning_rate=experiment.optimizer.schedule(num_steps),
            evaluate=evaluate,
            checkpoints=checkpoints,
            members=taking_part,
            say=say,
            speed=speed,
        )
    except Diverged:
        _close(logs)  # All of them did: every member says why.
    except BaseException:
        # What stopped the run matters more than what its end may run into.
        with contextlib.suppress(OSError):
            _close(logs)
        raise
    else:
        _close(logs)
    finally:
        checkpoints.close()

    def final(name: str, learner: Learner, params: Params) -> np.ndarray:
        if learner.predict_beside is None or name != exported or answers is None:
            return learner.predict(params, data.final)
        theirs = replicate(tuple(teacher.params for teacher in answers.teachers), mesh)
        return learner.predict_beside((params, theirs), data.final)

    def fitted(i: int) -> Fitted:
        params = stacked.params_of(i, num, state.params, mesh)
        learnt = {
            name: Learnt(
                networks[name],
                jax.device_get(params[name]),
                final(name, learner, params[name]),
                learner.model,
            )
            for name, learner in learners.items()
        }
        asked = 0
        if answers is not None and experiment.asks_teachers:
            # A view is of a whole batch, of which a process may have a part.
            whole = dataclasses.replace(every_seed[i], here=None)
            per_example = questions(
                experiment.view, experiment.losses, whole[0], target.num_outputs
            )
            seen = every_seed[i].num_seen(num_steps)
            asked = answers.num_queries(seen, per_example)
        return Fitted(learnt, num_steps, asked, speed, mesh)

    return [_outcome(member, i, fitted) for i, member in enumerate(taking_part)]


def _outcome(member: Member, i: int, fitted: Callable[[int], Fitted]) -> Outcome:
    if member.diverged:
        return Diverged(member.diverged)
    return None if member.log is None else lambda: fitted(i)


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


def _close(logs: Sequence[MetricsLog | None]) -> None:
    for log in filter(None, logs):
        log.close()


def _fidelity_name(name: str, row: dict[str, float]) -> str:
    """A regression is scored, and compared with its teacher, by metrics of one name."""
    return f"teacher_{name}" if name in row else name
