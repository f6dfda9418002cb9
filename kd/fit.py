"""Trains the student of an experiment in a run's folder."""

import contextlib
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from kd.data.pipeline import TrainingBatches
from kd.data.task import Prepared
from kd.errors import UserError
from kd.evaluate import fidelity
from kd.evaluate.predict import predictor
from kd.evaluate.scores import scores
from kd.experiment import Experiment
from kd.models import saved
from kd.procedures.offline import offline
from kd.teacher import TeacherOnData
from kd.train.checkpoint import Checkpoints
from kd.train.loop import Pace, train
from kd.train.mesh import replicate, shard_batch
from kd.train.metrics_log import MetricsLog
from kd.types import Architecture, Model, Params

Say = Callable[[str], Any]


class Fitted(NamedTuple):
    """A trained student."""

    student: Architecture
    params: Params
    dev_logits: Float[np.ndarray, "num_dev v"]
    num_steps: int
    examples_per_second: float
    seconds: float


def fit(
    experiment: Experiment,
    data: Prepared,
    teacher: TeacherOnData | None,
    directory: pathlib.Path,
    *,
    mesh: Mesh,
    say: Say,
) -> Fitted:
    """Trains to the end, from the newest checkpoint in the folder if there is one.

    Args:
        experiment: whose student to train; its teacher is the next.
        data: what to train and evaluate on.
        teacher: on the data, or None.
        directory: for `metrics.jsonl` and `checkpoints/`.
        mesh: of the devices to train on.
        say: shows a line to the person who waits.
    """
    # Rows divide evenly among devices and micro-batches; what is over is masked.
    unit = mesh.size * experiment.num_microbatches
    batches = TrainingBatches(
        data.train,
        batch_size=experiment.batch_size,
        rows=math.ceil(experiment.batch_size / unit) * unit,
        seed=experiment.seed,
        teacher_logits=teacher.train_logits if teacher is not None else None,
    )
    num_steps = experiment.num_steps or experiment.num_epochs * batches.per_epoch
    example = shard_batch(batches[0], mesh)
    student, model, student_params = _student(experiment, data, example, say)
    # Where its logits are cached, the teacher itself need not be on the devices.
    live = teacher if teacher is not None and teacher.train_logits is None else None
    procedure = offline(
        model,
        live.model if live else None,
        experiment.objective,
        experiment.optimizer.build(num_steps),
        num_microbatches=experiment.num_microbatches,
        term_gradients=experiment.term_gradients,
        mesh=mesh,
    )
    teacher_params = replicate(live.params, mesh) if live else None
    # Not the key of the initial parameters: dropout has its own randomness.
    key = jax.random.fold_in(jax.random.key(experiment.seed), 1)
    state = procedure.init(key, student_params, teacher_params, example)
    predict = predictor(model, mesh=mesh)

    def evaluate(params: Params) -> dict[str, float]:
        logits = predict(params, data.dev)
        found = scores(logits, data.dev.labels)
        row = {"accuracy": found["accuracy"], "loss": found["nll"]}
        if teacher is not None:
            row["agreement"] = fidelity.agreement(logits, teacher.dev_logits)
            row["kl"] = fidelity.kl(logits, teacher.dev_logits)
        return row

    checkpoints = Checkpoints(directory / "checkpoints")
    log = MetricsLog(directory / "metrics.jsonl")
    started = time.perf_counter()
    try:
        state, examples_per_second = train(
            procedure,
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
    params = state.params["student"]
    return Fitted(
        student=student,
        params=jax.device_get(params),
        dev_logits=predict(params, data.dev),
        num_steps=num_steps,
        examples_per_second=examples_per_second,
        seconds=time.perf_counter() - started,
    )


def _student(
    experiment: Experiment, data: Prepared, batch: Any, say: Say
) -> tuple[Architecture, Model, Params]:
    student: Any = experiment.student
    saved.model_type(student)  # Raises now rather than after training.
    start = student.pretrained
    if data.vocab_size and not start:
        student = dataclasses.replace(student, vocab_size=data.vocab_size)
    model = student.build(
        experiment.data.num_classes, compute_dtype=experiment.compute_dtype
    )
    params = jax.jit(model.init)(jax.random.key(experiment.seed), batch)
    if start:
        check_same(student, saved.read_config(start).network)
        if data.vocab_size and data.vocab_size > student.vocab_size:
            raise UserError(
                f"the tokenizer has {data.vocab_size} tokens, {start} knows "
                f"{student.vocab_size}; data.tokenizer.vocabulary must be that of "
                "student.pretrained"
            )
        params, fresh, _ = saved.load(start, student, params)
        new = f"; new: {', '.join(fresh)}" if fresh else ""
        say(f"weights to start from: {start}{new}")
    return student, model, params


def check_same(wanted: Any, found: Any) -> None:
    """Checks what no shape of a weight would show.

    Args:
        wanted: the network to train, an architecture.
        found: the one that its `pretrained` holds.

    Raises:
        UserError: they differ.
    """
    if type(wanted) is not type(found):
        raise UserError(
            f"{wanted.pretrained} is a {type(found).__name__}, the student a "
            f"{type(wanted).__name__}"
        )
    for name in (
        "num_heads", "layer_norm_epsilon", "vocab_size", "num_blocks", "num_groups",
        "stem_stride", "widths",
    ):  # fmt: skip
        if getattr(wanted, name, None) != getattr(found, name, None):
            raise UserError(
                f"{wanted.pretrained} has {name} {getattr(found, name)}; set "
                f"student.{name} to it, it is {getattr(wanted, name)}"
            )
