"""How often a step asks the teachers, views included."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kd.objective import Loss, is_told
from kd.types import answers_name
from kd.views.view import View


def questions(
    view: View | None,
    losses: Sequence[Loss],
    batch: Mapping[str, Any],
    num_outputs: int,
) -> int:
    """How often a step puts every example of its batch to a teacher that runs in it.

    That is what the view asks about, such as a pool to pick from, and what is then
    learnt from: the view, the batch, or both; each unless its answers come with it. The
    view is traced and not computed, so that this is true of any that asks about whole
    batches.

    Args:
        view: of the batch; None where it is seen as it is.
        losses: that read what the teachers say.
        batch: any, as it comes.
        num_outputs: of the networks.
    """
    asked = 0

    def put(batch):
        nonlocal asked
        if not (answers_name(0) in batch and is_told(losses, batch)):
            asked += batch["mask"].shape[0]

    def ask(whom, batch):
        if whom == "teacher":
            put(batch)
        return jnp.zeros((*batch["mask"].shape, num_outputs))

    seen = dict(batch)
    if view is not None:
        looking = functools.partial(view, ask=ask)
        seen = jax.eval_shape(looking, jax.random.key(0), seen)
    put(seen)
    if "view" in seen:
        put(seen["view"])
    return asked // batch["mask"].shape[0]
