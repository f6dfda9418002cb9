"""What a network writes after prompts, and about the sources of a split."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from kd.data.pipeline import fill_rows
from kd.data.prompts import Prompts
from kd.data.task import Split
from kd.evaluate.target import Target
from kd.models.generate import generate
from kd.networks.predict import Predict
from kd.train.mesh import replicate, shard_batch
from kd.types import Model, Params

_ROWS = 32
"""Prompts at a time, on a device."""


def with_texts(
    predict: Predict,
    model: Model,
    target: Target,
    mesh: Mesh,
    own: Callable[[Params], Params] = lambda params: params,
) -> Predict:
    """What a target keeps of a network, with the texts that it writes of a split.

    Args:
        predict: what is kept, of parameters of some kind.
        model: which writes.
        target: puts the two together.
        mesh: of the devices to compute on.
        own: the model's parameters of those that `predict` takes.
    """

    def both(
        params: Params, split: Split, about: Int[np.ndarray, "q"] | None = None
    ) -> np.ndarray:
        kept = predict(params, split, about)
        index = np.arange(len(split)) if about is None else about
        prompts = split.prompts(index)  # pyrefly: ignore
        return target.with_texts(kept, write(model, own(params), prompts, mesh))

    return both


def write(model: Model, params: Params, prompts: Prompts, mesh: Mesh) -> list[str]:
    """The text after each prompt, a function of it and its place among them.

    Args:
        model: which writes (`Model.decoder`).
        params: its parameters.
        prompts: what after, and how.
        mesh: of the devices to compute on.
    """
    if mesh.is_multi_process:  # Every process writes all.
        mesh, params = mesh.local_mesh, jax.device_get(params)
    rows = mesh.size * min(_ROWS, -(-len(prompts) // mesh.size))
    params = replicate(params, mesh)
    fold = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))
    texts = []
    for first in range(0, len(prompts), rows):
        index = np.arange(first, min(first + rows, len(prompts)))
        filled = fill_rows(index, rows)
        batch = {"tokens": prompts.tokens, "token_mask": prompts.token_mask}
        batch = shard_batch({k: x[filled] for k, x in batch.items()}, mesh)
        written = generate(
            model,
            params,
            batch,
            fold(jax.random.key(0), jnp.asarray(filled)),
            prompts.how,
            num_tokens=prompts.num_tokens,
            end=prompts.end,
        )
        tokens, mask = np.asarray(written.tokens), np.asarray(written.token_mask)
        for row in range(len(index)):
            ids = [i for i in tokens[row][mask[row]].tolist() if i not in prompts.end]
            texts.append(prompts.decode(ids))
    return texts
