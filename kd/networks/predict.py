"""The logits of a model on a split."""

from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from kd.data.pipeline import fill_rows, plan_in_order
from kd.data.task import Split
from kd.train.mesh import shard_batch
from kd.types import Model, Params


@runtime_checkable
class Predict(Protocol):
    """From parameters and a split to float32 logits, dropout off."""

    def __call__(
        self, params: Params, split: Split, about: Int[np.ndarray, "q"] | None = None
    ) -> Float[np.ndarray, "q v"]:
        """The logits of the examples `about`, increasing; by default of all."""
        ...


def predictor(model: Model, *, mesh: Mesh, rows_per_device: int = 64) -> Predict:
    """The function of a network.

    Compiled once per shape of inputs, however often it is called.
    """
    # 64 rows of activations stay in a processor's cache: 256 take half as long again.
    rows = rows_per_device * mesh.size

    @jax.jit
    def logits(params, batch):
        return model.apply(params, batch, None).logits

    def predict(params, split, about=None):
        if about is None:
            about = np.arange(len(split))
        plan = plan_in_order(split.groups[about], batch_size=rows)
        found = [
            logits(
                params, shard_batch(split.inputs(fill_rows(about[index], rows)), mesh)
            )
            for index in plan
        ]
        order = np.concatenate(plan)
        values = np.concatenate(
            [
                np.asarray(part)[: len(index)]
                for part, index in zip(found, plan, strict=True)
            ]
        )
        ordered = np.empty_like(values)
        ordered[order] = values
        return ordered

    return predict
