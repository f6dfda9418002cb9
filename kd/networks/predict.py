"""The logits of a model, or what else it says, on a split."""

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from kd.data.pipeline import fill_rows, plan_in_order
from kd.data.task import Split
from kd.train.mesh import gathered, rows_here, shard_batch
from kd.types import Batch, Model, Outputs, Params


def logits(outputs: Outputs, batch: Batch) -> Any:
    """The logits alone, [b, v]."""
    del batch
    return outputs.logits


@runtime_checkable
class Predict(Protocol):
    """From parameters and a split to what a network says of it, dropout off."""

    def __call__(
        self, params: Params, split: Split, about: Int[np.ndarray, "q"] | None = None
    ) -> Any:
        """Arrays [q, ...] of the examples `about`, increasing; by default of all."""
        ...


def predictor(
    model: Model,
    *,
    mesh: Mesh,
    rows_per_device: int = 64,
    of: Callable[[Outputs, Batch], Any] = logits,
) -> Predict:
    """The function of a network: float32 logits, unless told otherwise.

    Compiled once per shape of inputs, however often it is called.

    Args:
        model: asked.
        mesh: of the devices to compute on.
        rows_per_device: examples at a time.
        of: what to keep of the outputs for a batch, if not the logits: arrays
            [b, ...], or a tree of them.

    Returns:
        The function; it gives arrays [num_examples, ...] in the order of the split.
    """
    # 64 rows of activations stay in a processor's cache: 256 take half as long again.
    rows = rows_per_device * mesh.size
    here = rows_here(rows, mesh)
    # Each process has its own rows to give.
    by_rows = None if here is None else NamedSharding(mesh, PartitionSpec("data"))

    @functools.partial(jax.jit, out_shardings=by_rows)
    def answer(params, batch):
        return of(model.apply(params, batch, None), batch)

    def predict(params, split, about=None):
        if about is None:
            about = np.arange(len(split))
        plan = plan_in_order(split.groups[about], batch_size=rows)

        def batch_of(index):
            padded = fill_rows(about[index], rows)
            ours = padded if here is None else padded[here]
            return shard_batch(split.inputs(ours), mesh, rows)

        found = [answer(params, batch_of(index)) for index in plan]
        order = np.concatenate(plan)

        def in_order(*parts):
            values = np.concatenate(
                [
                    part[: len(index)]
                    for part, index in zip(gathered(parts, mesh), plan, strict=True)
                ]
            )
            ordered = np.empty_like(values)
            ordered[order] = values
            return ordered

        return jax.tree.map(in_order, *found)

    return predict
