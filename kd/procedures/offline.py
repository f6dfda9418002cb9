"""Offline distillation: frozen teachers, batches from a fixed training set.

A teacher is consulted live, as a network inside the compiled step, or through its
logits, and single vectors of its hidden states, that travel with the batch; the step is
the same. Losses that read more of hidden states need it live. Training on labels alone
is the special case of an objective that needs no teacher.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from kd.procedures.procedure import Procedure, Setting, shapes_of
from kd.procedures.step import gradient_step
from kd.types import Batch, Metrics, Outputs, Params, Training, TrainState

if TYPE_CHECKING:
    from kd.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Offline(Procedure):
    """Trains the student, and the objective's own parameters, on given batches.

    Several teachers answer as one, by the mean of their probabilities (of their
    numbers, in a regression); their hidden states cannot be read.

    Source: of one teacher hinton2015distilling; of the mean of several
    you2017learning, whose mean is of softened probabilities.
    """

    takes_kept = True

    def problems(self, experiment: "Experiment") -> Iterator[str]:
        if len(experiment.teachers) > 1 and experiment.objective.reads_hidden:
            readers = [
                term.loss.name
                for term in experiment.objective.terms
                if term.loss.reads_hidden
            ]
            yield (
                f"{', '.join(readers)} reads hidden states, and there are "
                f"{len(experiment.teachers)} teachers to read; offline it must be one"
            )

    def build(self, setting: Setting) -> Training:
        def consult(teacher_params, batch, step):
            return setting.consult(teacher_params, batch), {}

        return distillation(setting, consult)


Consult = Callable[[Any, Batch, Any], tuple[Outputs | None, Metrics]]
"""(teacher_params, batch, step) -> what the student learns from, and metrics."""


Rewrite = Callable[[Params, Any, Batch, PRNGKeyArray], Batch]
"""(params, teacher_params, batch, key) -> the batch that is learnt from."""


def distillation(
    setting: Setting, consult: Consult, rewrite: Rewrite | None = None
) -> Training:
    """Trains the student by what frozen teachers say, on given batches.

    Args:
        setting: what it is made of.
        consult: asks the teachers; None where nobody needs to.
        rewrite: what becomes of a batch before anything else, if anything does.
    """
    student, objective = setting.learners["student"], setting.objective

    def init(key, learners, teacher_params, batch):
        key, objective_key = jax.random.split(key)
        student_out = shapes_of(student, learners["student"], batch)
        teacher_out, _ = jax.eval_shape(consult, teacher_params, batch, jnp.int32(0))
        params = {
            "student": learners["student"],
            "objective": objective.init(objective_key, student_out, teacher_out),
        }
        return TrainState(
            step=jnp.int32(0),
            params=params,
            opt_state=setting.optimizer.init(params),
            key=key,
        )

    def terms(params, teacher_params, batch, key, step):
        if rewrite is not None:
            # Not the key of dropout.
            own = jax.random.fold_in(key, _REWRITE)
            batch = rewrite(params, teacher_params, batch, own)
        teacher_out, told = consult(teacher_params, batch, step)
        student_out = student.apply(params["student"], batch, key)
        losses, metrics = objective.weighted(
            params["objective"], student_out, teacher_out, batch, step,
            apart=setting.term_gradients != "summed",
        )  # fmt: skip
        return losses, metrics | told

    step = gradient_step(
        terms, setting, names=objective.names, weights=objective.weights
    )
    return Training(init, step)


_REWRITE = 2**31 - 3
