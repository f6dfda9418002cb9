"""What is compiled for an experiment: the same for all of its seeds."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from kd import config
from kd.experiment import Experiment
from kd.networks.answers import Answers
from kd.networks.load import Loaded
from kd.networks.predict import (
    Predict,
    as_one,
    beside,
    keeper,
    keeper_beside,
    predictor,
)
from kd.networks.write import with_texts
from kd.procedures.procedure import Setting
from kd.run.shared import Shared
from kd.train import stacked
from kd.types import Architecture, Batch, Model, Params, Training


class Learner(NamedTuple):
    """What is compiled of a network that learns."""

    init: Callable[[PRNGKeyArray, Batch], Params]
    predict: Predict
    """Of its parameters."""
    predict_beside: Predict | None
    """Of (its parameters, a tuple of the teachers'); None where the former tells as
    much, see `Target.keep_beside`."""
    model: Model


class Program(NamedTuple):
    """The functions that a run repeats."""

    learners: Mapping[str, Learner]
    """By their names in the procedure."""
    training: Training


def program(
    experiment: Experiment,
    networks: Mapping[str, Architecture],
    answers: Answers | None,
    num_steps: int,
    *,
    vocab_size: int,
    end: tuple[int, ...],
    num_seeds: int,
    mesh: Mesh,
    shared: Shared,
) -> Program:
    """The functions of an experiment, those of an earlier seed if there was one.

    Args:
        experiment: what they are of.
        networks: that learn, by their names in the procedure.
        answers: the teachers, and what they say; None without.
        num_steps: length of the run, which schedules depend on.
        vocab_size: tokens that there are, 0 where examples are no text.
        end: those that end a text.
        num_seeds: that the step takes further at once.
        mesh: of the devices.
        shared: where functions are kept.
    """
    live = teachers_in_step(answers)
    seedless = config.to_json(dataclasses.replace(experiment, seed=0))
    key = (
        json.dumps(config.identity(seedless), sort_keys=True),
        repr(sorted(networks.items())),
        tuple(teacher.fingerprint for teacher in live),
        num_steps,
        vocab_size,
        end,
        num_seeds,
        mesh,
    )
    return shared.once(
        "programs",
        key,
        lambda: _build(
            experiment, networks, answers, num_steps, vocab_size, end, num_seeds, mesh
        ),
    )


def teachers_in_step(answers: Answers | None) -> tuple[Loaded, ...]:
    """What every step consults beside the batch: teachers, or what stands for them."""
    return answers.in_program if answers is not None else ()


def _build(
    experiment: Experiment,
    networks: Mapping[str, Architecture],
    answers: Answers | None,
    num_steps: int,
    vocab_size: int,
    end: tuple[int, ...],
    num_seeds: int,
    mesh: Mesh,
) -> Program:
    live = teachers_in_step(answers)
    target = experiment.data.target
    models = {
        name: experiment.data.build(
            network, vocab_size=vocab_size, compute_dtype=experiment.compute_dtype
        )
        for name, network in networks.items()
    }

    def learner(model: Model) -> Learner:
        predict_beside = None
        asked = answers is not None and answers.dev is not None
        if answers is not None and asked and target.compares_beside:
            teacher = as_one([t.model for t in answers.teachers], experiment.combine)
            predict_beside = predictor(
                beside(model, teacher), mesh=mesh, of=keeper_beside(target)
            )
        predict = predictor(model, mesh=mesh, of=keeper(target))
        if target.writes:
            predict = with_texts(predict, model, target, mesh)
        if target.writes and predict_beside is not None:
            predict_beside = with_texts(
                predict_beside, model, target, mesh, own=lambda params: params[0]
            )
        return Learner(jax.jit(model.init), predict, predict_beside, model)

    training = experiment.procedure.build(
        Setting(
            learners=models,
            teachers=tuple(teacher.model for teacher in live)
            or (None,) * len(experiment.teachers),
            combine=experiment.combine,
            objective=experiment.objective,
            optimizer=experiment.optimizer.build(num_steps),
            num_steps=num_steps,
            end=end,
            num_microbatches=experiment.num_microbatches,
            term_gradients=experiment.term_gradients,
            view=experiment.view,
            # Of several seeds each is on one device whole.
            mesh=mesh if num_seeds == 1 else None,
        )
    )
    over = stacked.mesh_of(num_seeds, mesh)
    return Program(
        {name: learner(model) for name, model in models.items()},
        stacked.vmapped(training, num_seeds, over),
    )
