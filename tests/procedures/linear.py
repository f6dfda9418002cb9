"""A network small enough to see through, and a batch for it."""

import jax
import jax.numpy as jnp
import numpy as np

from kd.types import Model, Outputs


def linear(rate=0.0):
    """Logits linear in the inputs, with dropout on the inputs."""

    def init(key, batch):
        return {"w": 0.5 * jax.random.normal(key, (batch["inputs"].shape[1], 3))}

    def apply(params, batch, key):
        inputs = batch["inputs"]
        if key is not None and rate:
            keep = jax.random.bernoulli(key, 1 - rate, inputs.shape)
            inputs = jnp.where(keep, inputs / (1 - rate), 0)
        return Outputs(logits=inputs @ params["w"], hidden=(inputs,))

    return Model(init, apply)


def make_batch(rows=12, masked=2):
    random = np.random.default_rng(0)
    return {
        "inputs": jnp.float32(random.normal(size=(rows, 5))),
        "labels": jnp.int32(random.integers(0, 3, rows)),
        "mask": jnp.arange(rows) < rows - masked,
    }


def with_hidden_labels(batch, hidden, missing=-1):
    """The batch as `kd.data.sample` gives it; masked rows are the last."""
    keeps = batch["mask"] & ~np.isin(np.arange(len(batch["mask"])), hidden)
    weight = keeps * batch["mask"].sum() / np.maximum(keeps.sum(), 1)
    return keeps, batch | {
        "labels": jnp.where(keeps, batch["labels"], missing),
        "label_weight": jnp.float32(weight),
    }
