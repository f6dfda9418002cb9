"""Offline distillation: a frozen teacher, batches from a fixed training set.

The teacher is consulted live, as a network inside the compiled step, or through its
logits that travel with the batch; the step is the same. Losses that read its hidden
states need it live. Training on labels alone
is the special case of an objective that needs no teacher.
"""

import contextlib
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kd.objective import Mix
from kd.procedures.term_gradients import balance_factors, compared, per_term, summed
from kd.types import Batch, Model, Outputs, Params, Procedure, TrainState

TermGradients = Literal["summed", "watched", "balanced"]
"""What becomes of the gradients of an objective's terms, see `offline`."""


def offline(
    student: Model,
    teacher: Model | None,
    objective: Mix,
    optimizer: optax.GradientTransformation,
    *,
    num_microbatches: int = 1,
    term_gradients: TermGradients = "summed",
    mesh: Mesh | None = None,
) -> Procedure:
    """Trains the student, and the objective's own parameters, on given batches.

    Args:
        student: the network that learns.
        teacher: the frozen network. Not called where the objective needs no teacher,
            or only its logits and the batch has "teacher_logits".
        objective: what is minimised.
        optimizer: applied to the gradient averaged over the batch.
        num_microbatches: parts that a batch is processed in, one after the other,
            to save memory. Gradients and metrics are averaged by the number of
            unmasked examples, which gives those of the whole batch, except for
            losses that couple its examples: they see one part at a time.
        term_gradients: "summed" for the gradient of the objective; "watched" for that
            and, as metrics, the norm of every term's gradient for the student's
            parameters and the cosine of every pair; "balanced" for these and terms
            rescaled so that these norms are as their weights, see
            `balance_factors`. The objective's own parameters are not rescaled. The
            latter two take a backward pass, and memory for a gradient, per term.
        mesh: of the devices that batches are sharded over. States and metrics are then
            the same on all of them after every step, whatever the compiler prefers.

    Returns:
        The procedure; metrics are those of the objective and `grad_norm`, before
        clipping.
    """

    def consult(teacher_params: Params, batch: Batch) -> Outputs | None:
        if not objective.needs_teacher:
            return None
        if "teacher_logits" in batch and not objective.reads_hidden:
            return Outputs(logits=batch["teacher_logits"])
        if teacher is None:
            what = "hidden states" if objective.reads_hidden else "logits"
            raise ValueError(
                f"the objective needs a teacher and there is none to give its {what}"
            )
        return teacher.apply(teacher_params, batch, None)

    def init(key, student_params, teacher_params, batch):
        key, objective_key = jax.random.split(key)
        student_out = jax.eval_shape(student.apply, student_params, batch, None)
        teacher_out = jax.eval_shape(consult, teacher_params, batch)
        params = {
            "student": student_params,
            "objective": objective.init(objective_key, student_out, teacher_out),
        }
        return TrainState(
            step=jnp.int32(0), params=params, opt_state=optimizer.init(params), key=key
        )

    def whole(params, teacher_params, batch, key, step):
        teacher_out = consult(teacher_params, batch)

        def terms(params):
            student_out = student.apply(params["student"], batch, key)
            return objective.weighted(
                params["objective"], student_out, teacher_out, batch, step
            )

        def total(params):
            _, metrics = terms(params)
            return metrics["loss"], metrics

        if term_gradients == "summed":
            return jax.grad(total, has_aux=True)(params)
        return per_term(terms, params)

    def in_parts(params, teacher_params, batch, key, step):
        parts = jax.tree.map(_split_rows, batch)
        num_examples = jnp.maximum(jnp.sum(batch["mask"]), 1)

        def accumulate(total, part):
            i, part = part
            share = jnp.sum(part["mask"]) / num_examples
            found = whole(
                params, teacher_params, part, jax.random.fold_in(key, i), step
            )
            return jax.tree.map(lambda t, x: t + share * x, total, found), None

        shapes = jax.eval_shape(
            whole,
            params,
            teacher_params,
            jax.tree.map(lambda x: x[0], parts),
            key,
            step,
        )
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total, _ = jax.lax.scan(
            accumulate, zeros, (jnp.arange(num_microbatches), parts)
        )
        return total

    def _split_rows(rows):
        # Part i takes rows i, i + k, i + 2k, ...: of a batch sharded over devices
        # every device then works on every part.
        shape = (rows.shape[0] // num_microbatches, num_microbatches)
        return rows.reshape(shape + rows.shape[1:]).swapaxes(0, 1)

    everywhere = NamedSharding(mesh, PartitionSpec()) if mesh else None

    @functools.partial(jax.jit, donate_argnames="state", out_shardings=everywhere)
    def step(state, teacher_params, batch):
        # Losses that couple the examples of all devices ask for the mesh.
        with (
            jax.sharding.use_abstract_mesh(mesh.abstract_mesh)
            if mesh
            else contextlib.nullcontext()
        ):
            return update(state, teacher_params, batch)

    def update(state, teacher_params, batch):
        key = jax.random.fold_in(state.key, state.step)
        gradient_of = whole if num_microbatches == 1 else in_parts
        gradient, metrics = gradient_of(
            state.params, teacher_params, batch, key, state.step
        )
        if term_gradients != "summed":
            metrics |= compared(gradient["student"], objective.names)
            factors = None
            if term_gradients == "balanced":
                weights = objective.weights(state.step)
                factors = balance_factors(gradient["student"], weights)
            gradient = {
                "student": summed(gradient["student"], factors),
                "objective": summed(gradient["objective"]),
            }
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        metrics["grad_norm"] = optax.tree.norm(gradient)
        new_state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        )
        return new_state, metrics

    return Procedure(init, step)
