"""How much a teacher's mean prediction varies with what it is asked: "T. stddev"."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from kd.types import Batch
from kd.views.view import View


def teacher_stddev(
    predict: Callable[[Batch], Float[Array, "b v"]],
    batches: Iterable[Any],
    view: View | None = None,
    *,
    key: PRNGKeyArray | None = None,
    batches_per_mean: int = 5,
) -> float:
    """Standard deviation of the teacher's mean probability, over samples of views.

        u_k = mean of softmax(t(x)) over the examples x of the k-th batches_per_mean
              batches;  result = mean over classes of std_k u_k

    with the unbiased standard deviation. It is low where the examples of a group are
    as different as all there are. In the paper students learn better from views that
    make it lower; no student takes part in it.

    Where the view is `Beside(...)` the batch itself counts as well, as in their code.

    Args:
        predict: the teacher's logits on a batch.
        batches: of examples, with "mask" [b]; what is left of the last group is not
            used.
        view: of these; None for the examples as they are.
        key: of the views.
        batches_per_mean: in a group.

    Returns:
        A probability.

    Raises:
        ValueError: there are fewer than two groups, or a view without a key.

    Source: wang2022augmentation, "stddev of teacher's mean probability", as its code
    computes it: of five batches of 64, each with its view, over ten epochs.
    """
    if view is not None and key is None:
        raise ValueError("views are drawn: give key=")

    @jax.jit
    def seen(number: Any, batch: Any) -> tuple[Float[Array, "v"], Float[Array, ""]]:
        if view is None or key is None:
            return _sums(predict, batch)
        ask = functools.partial(_teacher_only, predict)
        viewed = view(jax.random.fold_in(key, number), batch, ask)
        beside = viewed.pop("view", None)
        sums = _sums(predict, viewed)
        if beside is None:
            return sums
        return jax.tree.map(jnp.add, sums, _sums(predict, beside))

    means: list[Any] = []
    total: Any = 0
    count: Any = 0
    for number, batch in enumerate(batches, start=1):
        probabilities, examples = seen(number, batch)
        total, count = total + np.float64(probabilities), count + float(examples)
        if number % batches_per_mean == 0:
            means.append(total / count)
            total = count = 0
    if len(means) < 2:
        raise ValueError(
            f"a deviation needs two means, of {batches_per_mean} batches each, and "
            f"there are {len(means)}"
        )
    return float(np.std(means, axis=0, ddof=1).mean())


def _teacher_only(predict, whom, batch):
    if whom != "teacher":
        raise ValueError("no student takes part; let views choose by='teacher'")
    return predict(batch)


def _sums(predict, batch):
    """Of the probabilities of its examples, and how many these are."""
    probabilities = jax.nn.softmax(predict(batch).astype(jnp.float32))
    where = batch["mask"]
    total = jnp.sum(probabilities, axis=0, where=where[:, None])
    return total, jnp.sum(where, dtype=total.dtype)
