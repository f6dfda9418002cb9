"""How what is kept of a teacher's answers differs from what it says."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped

from kd.data.pipeline import fill_rows, plan_in_order
from kd.data.task import Prepared
from kd.networks.kept.record import Streamed
from kd.networks.load import Loaded, longest

_SAMPLE = 64
"""Examples that are compared."""
_AT_ONCE = 8
"""Of these."""


def measured(
    arrays: Mapping[str, Shaped[np.ndarray, "q ..."]],
    teacher: Loaded,
    keep: Streamed,
    data: Prepared,
    about: Int[np.ndarray, "q"],
) -> dict[str, Any]:
    """How what is kept differs from what the teacher says, on a sample of examples.

    Means and maxima over the predictions that count.
    """
    chosen = np.unique(np.linspace(0, len(about) - 1, _SAMPLE).astype(int))

    @functools.partial(jax.jit, static_argnames="length")
    def compare(params, shared, inputs, told, length):
        live = teacher.model.apply(params, inputs, None)
        told = {name: x[:, :length] if length else x for name, x in told.items()}
        counts = inputs.get("prediction_mask", jnp.ones(live.logits.shape[:-1], bool))
        return keep.errors(live, keep.outputs(told, shared)), counts

    shared = shared_of(teacher, keep, data)
    found: dict[str, list[np.ndarray]] = {}
    for index in plan_in_order(data.train.groups[about[chosen]], batch_size=_AT_ONCE):
        rows = fill_rows(chosen[index], _AT_ONCE)
        inputs = data.train.inputs(about[rows])
        told = {name: np.asarray(x[rows]) for name, x in arrays.items()}
        wide = inputs.get("prediction_mask")
        errors, counts = compare(
            teacher.params, shared, inputs, told, 0 if wide is None else wide.shape[1]
        )
        counts = np.asarray(counts).copy()
        counts[len(index) :] = False
        for name, values in errors.items():
            found.setdefault(name, []).append(np.asarray(values)[counts])
    whole = {name: np.concatenate(parts) for name, parts in found.items()}
    return {
        "sample": {
            "examples": len(chosen),
            "predictions": len(next(iter(whole.values()))),
        },
        **{
            name: {
                "mean": [float(x) for x in values.mean(axis=0)],
                "max": [float(x) for x in values.max(axis=0)],
            }
            for name, values in whole.items()
        },
    }


def shared_of(teacher: Loaded, keep: Streamed, data: Prepared) -> Any:
    """What is the same for all predictions; shapes, if the teacher's are that."""

    def shared(params, batch):
        return keep.shared(teacher.model.apply(params, batch, None))

    batch = longest(data.train)
    if isinstance(jax.tree.leaves(teacher.params)[0], jax.ShapeDtypeStruct):
        return jax.eval_shape(shared, teacher.params, batch)
    return jax.jit(shared)(teacher.params, batch)
