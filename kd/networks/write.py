"""What a network writes after prompts."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kd.data.pipeline import fill_rows
from kd.data.prompts import Prompts
from kd.models.generate import generate
from kd.train.mesh import replicate, shard_batch
from kd.types import Model, Params

_ROWS = 32
"""Prompts at a time, on a device."""


def write(model: Model, params: Params, prompts: Prompts, mesh: Mesh) -> list[str]:
    """The text after each prompt, a function of it and its place among them.

    Args:
        model: which writes (`Model.decoder`).
        params: its parameters.
        prompts: what after, and how.
        mesh: of the devices to compute on.
    """
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
