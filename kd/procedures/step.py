"""The compiled step that procedures share: view, parts, gradient, update."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray

from kd.procedures.procedure import Setting
from kd.procedures.term_gradients import balance_factors, compared, per_term, summed
from kd.types import Batch, Metrics, Params, TrainState

Terms = Callable[
    [Params, Any, Batch, PRNGKeyArray, Any],
    tuple[Sequence[Float[Array, ""]], Metrics],
]
"""(params, teacher_params, batch, key, step) -> weighted losses whose sum is minimised,
and metrics with that sum as "loss"."""


def gradient_step(
    terms: Terms,
    setting: Setting,
    *,
    names: Sequence[str],
    weights: Callable[[Any], Sequence[Any]],
) -> Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]:
    """A step of the optimizer down the gradient of a sum of losses.

    Args:
        terms: the losses, of all parameters of the state.
        setting: optimizer, view, micro-batches, mesh, and what becomes of the
            gradients of the terms.
        names: of the terms.
        weights: of the terms at a step.

    Returns:
        The compiled step; its metrics are those of `terms` and `grad_norm`, before
        clipping.
    """
    num_microbatches, term_gradients = setting.num_microbatches, setting.term_gradients
    mesh, view = setting.mesh, setting.view
    if view is not None and view.beside is not None:
        terms, names, weights = _of_both(terms, names, weights, view.beside)

    def whole(params, teacher_params, batch, key, step):
        def losses(params):
            return terms(params, teacher_params, batch, key, step)

        def total(params):
            _, metrics = losses(params)
            return metrics["loss"], metrics

        if term_gradients == "summed":
            return jax.grad(total, has_aux=True)(params)
        return per_term(losses, params)

    def in_parts(params, teacher_params, batch, key, step):
        parts = jax.tree.map(split_rows, batch)
        num_examples = jnp.maximum(jnp.sum(batch["mask"]), 1)

        def accumulate(total, part):
            i, part = part
            share = jnp.sum(part["mask"]) / num_examples
            found = whole(
                params, teacher_params, part, jax.random.fold_in(key, i), step
            )
            # The share is float64 under x64, the gradient what the parameters are.
            added = jax.tree.map(
                lambda t, x: (t + share * x).astype(t.dtype), total, found
            )
            return added, None

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

    def split_rows(rows):
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
        if view is not None:
            ask = functools.partial(setting.ask, state.params, teacher_params)
            batch = view(view_key(state.key, state.step), batch, ask)
        gradient_of = whole if num_microbatches == 1 else in_parts
        if num_microbatches > 1 and "prediction_mask" in batch:
            batch = _with_tokens_per_example(batch)
        gradient, metrics = gradient_of(
            state.params, teacher_params, batch, key, state.step
        )
        if term_gradients != "summed":
            learners = {k: v for k, v in gradient.items() if k != "objective"}
            learners = learners["student"] if [*learners] == ["student"] else learners
            metrics |= compared(learners, names)
            factors = None
            if term_gradients == "balanced":
                factors = balance_factors(learners, weights(state.step))
            gradient = {
                name: summed(part, None if name == "objective" else factors)
                for name, part in gradient.items()
            }
        updates, opt_state = setting.optimizer.update(
            gradient, state.opt_state, state.params
        )
        metrics["grad_norm"] = optax.tree.norm(gradient)
        for _, sparsity in optax.tree.get_all_with_path(opt_state, "sparsity"):
            metrics["sparsity"] = sparsity
        new_state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        )
        return new_state, metrics

    return step


def view_key(key: PRNGKeyArray, step: Any) -> PRNGKeyArray:
    """The key of what a view draws at a step, which is not that of dropout.

    Args:
        key: of the training state.
        step: of the optimizer.
    """
    return jax.random.fold_in(jax.random.fold_in(key, step), _VIEW)


def _with_tokens_per_example(batch: Batch) -> Batch:
    """With what a part of the batch does not know: how many tokens the whole has."""
    if any(name.endswith("_weight") for name in batch):
        return batch
    mask = batch["mask"]
    num_tokens = jnp.sum(batch["prediction_mask"] & mask[:, None])
    mean = jnp.maximum(num_tokens, 1) / jnp.maximum(jnp.sum(mask), 1)
    return {**batch, "tokens_per_example": jnp.full(mask.shape, mean, jnp.float32)}


def _of_both(
    terms: Terms,
    names: Sequence[str],
    weights: Callable[[Any], Sequence[Any]],
    share: float,
) -> tuple[Terms, list[str], Callable[[Any], Sequence[Any]]]:
    """Terms of a batch and of the view beside it, "view/<name>", with their weights."""

    def of_both(params, teacher_params, batch, key, step):
        viewed = batch["view"]
        batch = {name: rows for name, rows in batch.items() if name != "view"}
        losses, metrics = terms(params, teacher_params, batch, key, step)
        key = jax.random.fold_in(key, _BESIDE)
        others, seen = terms(params, teacher_params, viewed, key, step)
        loss = metrics["loss"] + share * seen.pop("loss")
        for name, value in seen.items():
            of_term = name.startswith("loss/")
            name = name.removeprefix("loss/")
            metrics[f"loss/view/{name}" if of_term else f"view/{name}"] = value
        losses = [*losses, *(share * other for other in others)]
        return losses, metrics | {"loss": loss}

    def of_both_weights(step):
        found = weights(step)
        return [*found, *(share * weight for weight in found)]

    return of_both, [*names, *(f"view/{name}" for name in names)], of_both_weights


# Keys of a step that are none of its dropout.
_VIEW, _BESIDE = 2**31 - 1, 2**31 - 2
