"""Trains the networks of an experiment in a run's folder."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from kd.data.pipeline import TrainingBatches
from kd.data.sample import Sample
from kd.data.task import Prepared
from kd.errors import UserError
from kd.experiment import Experiment
from kd.models import saved
from kd.networks.answers import Answers
from kd.networks.load import Start
from kd.procedures.procedure import answers_name
from kd.run import keep
from kd.run.memory import Memory
from kd.run.program import Learner, program, teachers_in_step
from kd.train.checkpoint import Checkpoints
from kd.train.loop import Pace, train
from kd.train.mesh import replicate, shard_batch
from kd.train.metrics_log import MetricsLog
from kd.train.speed import Speed
from kd.types import Architecture, Params

Say = Callable[[str], Any]


class Learnt(NamedTuple):
    """A network that has been trained."""

    network: Architecture
    params: Params
    dev: Float[np.ndarray, "num_dev v"]
    """Its outputs on dev."""


class Fitted(NamedTuple):
    """What training gave."""

    learnt: dict[str, Learnt]
    """Every network that learned, by its name in the procedure."""
    num_steps: int
    speed: Speed


def fit(
    experiment: Experiment,
    data: Prepared,
    sample: Sample,
    start: Start | None,
    answers: Answers | None,
    directory: pathlib.Path,
    *,
    mesh: Mesh,
    memory: Memory,
    say: Say,
) -> Fitted:
    """Trains to the end, from the newest checkpoint in the folder if there is one.

    Args:
        experiment: what to train; its teachers and its start are the next.
        data: what to train and evaluate on.
        sample: what of its training split is learnt from.
        start: what the student begins with; None for fresh weights.
        answers: the teachers, and what they say about the data; None without.
        directory: for `metrics.jsonl` and `checkpoints/`.
        mesh: of the devices to train on.
        memory: of compiled functions.
        say: shows a line to the person who waits.
    """
    # Rows divide evenly among devices and micro-batches; what is over is masked.
    unit = mesh.size * experiment.num_microbatches
    cached = answers.train if answers is not None else None
    told = {answers_name(i): logits for i, logits in enumerate(cached or ())}
    if answers is not None:
        told |= answers.vectors(experiment.objective.embeddings, sample)
    batches = TrainingBatches(
        data.train,
        batch_size=experiment.batch_size,
        rows=math.ceil(experiment.batch_size / unit) * unit,
        seed=experiment.seed,
        answers=told,
        sample=None if sample.is_whole else sample,
    )
    num_steps = experiment.num_steps or experiment.num_epochs * batches.per_epoch
    if problems := [*experiment.objective.problems_within(num_steps)]:
        raise UserError(f"objective: {'; '.join(problems)}")
    example = shard_batch(batches[0], mesh)
    networks = experiment.procedure.learners(_student(experiment, start, say))
    networks = {name: _for_vocabulary(n, data, start) for name, n in networks.items()}
    learners, training = program(
        experiment, networks, answers, num_steps, mesh=mesh, memory=memory
    )
    first = {
        name: _first_params(experiment, name, i, learner, start, example)
        for i, (name, learner) in enumerate(learners.items())
    }
    live = teachers_in_step(answers)
    teacher_params = replicate(tuple(teacher.params for teacher in live), mesh)
    # Not the key of the initial parameters: dropout has its own randomness.
    key = jax.random.fold_in(jax.random.key(experiment.seed), 1)
    state = training.init(key, first, teacher_params, example)
    target, exported = experiment.data.target, experiment.procedure.exported

    def evaluate(params: Params) -> dict[str, float]:
        row = {}
        for name, learner in learners.items():
            outputs = learner.predict(params[name], data.dev)
            prefix = "" if name == exported else f"{name}/"
            for metric in target.watched:
                row[prefix + metric.name] = metric.compute(outputs, data.dev.labels)
            taught = answers.dev if answers is not None else None
            if taught is not None and name == exported:
                for metric in target.fidelity[:2]:
                    named = _fidelity_name(metric.name, row)
                    row[named] = metric.compute(outputs, taught)
        if experiment.keep_best:
            best = networks[exported], jax.device_get(params[exported])
            keep.save_if_best(directory, experiment, *best, row)
        return row

    checkpoints = Checkpoints(directory / "checkpoints")
    log = MetricsLog(directory / "metrics.jsonl")
    speed = Speed()
    try:
        state = train(
            training,
            replicate(state, mesh),
            teacher_params,
            batches,
            pace=Pace(
                num_steps=num_steps,
                steps_per_epoch=batches.per_epoch,
                evaluate_every=experiment.evaluate_every or batches.per_epoch,
                save_every=experiment.save_every,
                log_every=experiment.log_every,
            ),
            mesh=mesh,
            learning_rate=experiment.optimizer.schedule(num_steps),
            evaluate=evaluate,
            checkpoints=checkpoints,
            log=log,
            say=say,
            speed=speed,
        )
    except BaseException:
        # What stopped the run matters more than what its end may run into.
        with contextlib.suppress(OSError):
            log.close()
        raise
    else:
        log.close()
    finally:
        checkpoints.close()
    return Fitted(
        learnt={
            name: Learnt(
                networks[name],
                jax.device_get(state.params[name]),
                learner.predict(state.params[name], data.dev),
            )
            for name, learner in learners.items()
        },
        num_steps=num_steps,
        speed=speed,
    )


def _fidelity_name(name: str, row: dict[str, float]) -> str:
    """A regression is scored, and compared with its teacher, by metrics of one name."""
    return f"teacher_{name}" if name in row else name


def _student(experiment: Experiment, start: Start | None, say: Say) -> Architecture:
    student = experiment.student
    if start is not None:
        new = f"; new: {', '.join(start.fresh)}" if start.fresh else ""
        say(f"weights to start from: {start.source}{new}")
        student = student or start.network
    assert student is not None
    saved.model_type(student)  # Raises now rather than after training.
    return student


def _for_vocabulary(
    network: Architecture, data: Prepared, start: Start | None
) -> Architecture:
    """With an embedding for every token, or as many as the start has."""
    if not data.vocab_size:
        return network
    size = data.vocab_size
    if start is not None:
        size = max(size, getattr(start.network, "vocab_size", 0))
    return dataclasses.replace(network, vocab_size=size)  # pyrefly: ignore


def _first_params(
    experiment: Experiment,
    name: str,
    place: int,
    learner: Learner,
    start: Start | None,
    batch: Any,
) -> Params:
    key = jax.random.key(experiment.seed)
    # Networks that learn together begin differently.
    key = jax.random.fold_in(key, place) if place else key
    fresh = learner.init(key, batch)
    if start is None or name != experiment.procedure.exported:
        return fresh
    params = dict(start.params)
    for module in start.fresh:
        params[module] = fresh[module]
    shapes, wanted = (jax.tree.map(lambda x: x.shape, tree) for tree in (params, fresh))
    if shapes != wanted:
        raise UserError(
            f"{start.source}: its weights do not fit the task's examples, such as "
            f"{next(_differing(shapes, wanted))}"
        )
    return params


def _differing(ours: Any, theirs: Any):
    for (path, a), (_, b) in zip(
        jax.tree.leaves_with_path(ours, is_leaf=lambda x: isinstance(x, tuple)),
        jax.tree.leaves_with_path(theirs, is_leaf=lambda x: isinstance(x, tuple)),
        strict=False,
    ):
        if a != b:
            yield f"{jax.tree_util.keystr(path)} {list(a)}, expected {list(b)}"
    yield "another tree of parameters"
