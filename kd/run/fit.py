"""Trains the networks of an experiment: of one seed, or of several in one program."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Shaped

from kd import hosts
from kd.data.task import judged
from kd.errors import Diverged, UserError, is_out_of_memory
from kd.experiment import Experiment
from kd.report.quantities import size
from kd.run import keep
from kd.run.assembly import Assembly, assemble
from kd.run.ingredients import Ingredients
from kd.run.program import Learner
from kd.run.relief import relief
from kd.run.requirements import notices, requirements
from kd.run.shared import Shared
from kd.train import stacked
from kd.train.block import Pace
from kd.train.checkpoint import Checkpoints
from kd.train.loop import train
from kd.train.members import Member
from kd.train.mesh import replicate, shard_batch
from kd.train.metrics_log import MetricsLog
from kd.train.speed import Speed
from kd.types import Architecture, Model, Params
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
    shared: Shared,
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
        shared: where functions are kept.
        say: shows a line to the person who waits.

    Returns:
        What became of each.

    Raises:
        kd.train.loop.Interrupted: a signal asked to stop; the state is saved.
    """
    num = len(seeds)
    members = [dataclasses.replace(experiment, seed=seed) for seed in seeds]
    data, start, answers = made_from.data, made_from.start, made_from.answers
    parts = assemble(experiment, seeds, made_from, mesh=mesh, shared=shared, say=say)
    networks, learners, training = parts.networks, parts.learners, parts.training
    every_seed, num_steps, ours = parts.every_seed, parts.num_steps, parts.mesh
    teacher_params = replicate(parts.teachers, ours)

    def begun(i: int) -> Any:
        place = shard_batch if num == 1 else replicate
        example = place(every_seed[i][0], ours)
        return parts.first_state(members[i], start, teacher_params, example)

    state = stacked.stack([begun(i) for i in range(num)], ours)
    for line in shared.once(
        "logits", training, lambda: notices(parts.decisions(state, teacher_params))
    ):
        say(line)
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
            parts.batches,
            pace=Pace(
                num_steps=num_steps,
                steps_per_epoch=parts.batches.per_epoch,
                evaluate_every=experiment.evaluate_every or parts.batches.per_epoch,
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
    except BaseException as error:
        # What stopped the run matters more than what its end may run into.
        with contextlib.suppress(OSError):
            _close(logs)
        full = isinstance(error, Exception) and is_out_of_memory(error)
        if full and num == 1:
            _tell_shortage(error, members[0], parts, made_from)
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


def _tell_shortage(
    error: BaseException,
    experiment: Experiment,
    parts: Assembly,
    made_from: Ingredients,
) -> None:
    """Raises UserError with what of a run is too large, if that can be told."""
    told = ""
    # Whatever goes wrong here must not hide what went wrong there.
    with contextlib.suppress(Exception):
        found = requirements(experiment, parts, made_from)
        first = str(error).partition("\n")[0]
        told = (
            f"out of memory{f' ({first:.200})' if first else ''}; a step takes "
            f"{size(found.total)} on each device, {relief(experiment, found)}; make "
            "memory NAME=... tells all of it"
        )
    if told:
        raise UserError(told) from error


def _close(logs: Sequence[MetricsLog | None]) -> None:
    for log in filter(None, logs):
        log.close()


def _fidelity_name(name: str, row: dict[str, float]) -> str:
    """A regression is scored, and compared with its teacher, by metrics of one name."""
    return f"teacher_{name}" if name in row else name
