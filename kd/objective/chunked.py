"""Losses of logits that are never there all at once.

At 4,096 tokens and 128,000 classes the logits of one network are 2 GB, and a loss makes
half a dozen arrays of that size. Most losses need only a row at a time: here logits are
made from the last hidden states for some rows, what is asked of them is computed, their
gradient too, and they are gone before the next rows come. The gradient costs no second
forward pass, since the weight of every row is known beforehand.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from kd.objective.partition import taken_together
from kd.transport.sharding import AXIS, devices_of_mesh, specs_of_head
from kd.types import Batch, Head, Metrics, Outputs, TopLogits

if TYPE_CHECKING:
    from kd.objective.loss import Loss


class OverRows(NamedTuple):
    """The mean of a loss over a batch, sum_i weights_i loss(s_i, t_i)."""

    loss: Any
    """Of rows of logits, which are made some at a time; None where `values` are."""
    rows: Batch
    """What it reads besides: entries of every row, and scalars."""
    weights: Float[Array, "n"]
    """Of every row."""
    metrics: Metrics
    """To watch, of the loss."""
    values: Float[Array, "n"] | None = None
    """Of all rows, as the loss computes them from heads by itself: where it couples
    rows, but needs all of their logits no more than others do. Functions of the
    student's hidden states, kernel and bias that can be differentiated."""


def equal_weights(mask: Bool[Array, "n"]) -> Float[Array, "n"]:
    """Of the rows in a mean over those that are not masked."""
    return mask / jnp.maximum(jnp.sum(mask), 1)


def large(head: Head, megabytes: float = 256.0) -> bool:
    """Whether float32 logits of all rows take more memory than so much."""
    num_rows = math.prod(head.hidden.shape[:-1])
    return 4 * num_rows * head.num_outputs > megabytes * 2**20


def weighted_sum(
    losses: "Sequence[Loss]",
    weights: Float[Array, "k"],
    student: Head,
    teacher: Head | TopLogits | None,
    batch: Batch,
    row_weights: Float[Array, "k n"],
    *,
    num_rows: int,
) -> tuple[Float[Array, ""], Float[Array, "k"]]:
    """A weighted sum of losses over rows, some rows at a time.

        sums_k = sum_i row_weights_ki losses_k(s_i, t_i)
        total  = sum_k weights_k sums_k

    All losses read the logits of the same rows while they are there. On a mesh every
    device does so with its own rows, and what the devices found is summed up once.

    Args:
        losses: that compute row by row (`Loss.row_by_row`) and learn nothing.
        weights: of every loss; constants.
        student: differentiated, in its hidden states, kernel and bias.
        teacher: a constant: what its logits are made by, or the largest of them; None
            if no loss needs one.
        batch: what the losses read besides, such as "mask" and "labels", [n] each, and
            scalars, such as the step.
        row_weights: of every row in every loss, 0 where it is masked; constants.
        num_rows: of which the logits are there at once, on each device.

    Returns:
        The total, to be differentiated; and the sums, which have no gradient.

    Raises:
        ValueError: a loss that couples its rows, or fewer rows at once than one.
    """
    for loss in losses:
        if not loss.row_by_row:
            raise ValueError(
                f"{loss.name} is not computed row by row: it needs the logits of all"
            )
    if num_rows < 1:
        raise ValueError(f"num_rows must be at least 1, got {num_rows}")
    constants = weights, teacher, dict(batch), row_weights
    return _total(tuple(losses), num_rows, student, jax.lax.stop_gradient(constants))


def of_rows(
    function: Callable[..., Float[Array, "k"]],
    head: Head,
    *arrays: Shaped[Array, "n ..."],
    num_rows: int,
) -> Float[Array, "n"]:
    """A number of every row of logits, some rows at a time; no gradient.

    Args:
        function: takes logits [k, v] and the entries of these rows in the arrays.
        head: of n rows.
        arrays: what it reads besides.
        num_rows: of which the logits are there at once, on each device.
    """
    head, arrays = jax.lax.stop_gradient((head, arrays))

    def mine(head, *arrays):
        parts = _split((head.hidden, arrays), num_rows)

        def of_part(part):
            hidden, arrays = part
            return function(head.replace(hidden=hidden).logits(), *arrays)

        return jax.lax.map(of_part, parts).reshape(-1)[: len(head.hidden)]

    devices = devices_of_mesh()
    if devices == 1 or len(head.hidden) % devices:
        return mine(head, *arrays)
    rows = jax.P(AXIS)
    return jax.shard_map(
        mine,
        in_specs=(specs_of_head(head), *[rows] * len(arrays)),
        out_specs=rows,
        check_vma=False,
    )(head, *arrays)


def rows_at_once(num_classes: int, megabytes: float = 16.0) -> int:
    """How many rows of float32 logits take so much memory: a power of 2, at least 1."""
    rows = megabytes * 2**20 / (4 * num_classes)
    return 1 << max(int(rows).bit_length() - 1, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _total(losses, num_rows, student, constants):
    found, _ = _over_devices(_of_all, losses, num_rows, student, constants)
    return found


def _forward(losses, num_rows, student, constants):
    return _over_devices(_of_all_and_gradient, losses, num_rows, student, constants)


def _backward(losses, num_rows, gradient, cotangents):
    del losses, num_rows
    of_total, _ = cotangents
    return jax.tree.map(lambda x: (of_total * x).astype(x.dtype), gradient), None


_total.defvjp(_forward, _backward)


def _over_devices(function, losses, num_rows, student, constants):
    """Every device with its own rows; sums and gradient of the head over all."""
    devices = devices_of_mesh()
    if devices == 1 or len(student.hidden) % devices:
        return function(losses, num_rows, student, constants)
    _, teacher, batch, _ = constants
    rows, everywhere = jax.P(AXIS), jax.P()

    def specs(head):
        return head and specs_of_head(head)

    def mine(student, constants):
        found, gradient = function(losses, num_rows, student, constants)
        if gradient is None:
            return jax.lax.psum(found, AXIS), None
        of_hidden = gradient.hidden
        rest = jax.lax.psum((found, gradient.replace(hidden=None)), AXIS)
        return rest[0], rest[1].replace(hidden=of_hidden)

    of_batch = {name: rows if jnp.ndim(x) else everywhere for name, x in batch.items()}
    return jax.shard_map(
        mine,
        in_specs=(
            specs(student),
            (everywhere, specs(teacher), of_batch, jax.P(None, AXIS)),
        ),
        out_specs=(
            everywhere,
            specs(student) if function is _of_all_and_gradient else None,
        ),
        check_vma=False,
    )(student, constants)


def _of_all(losses, num_rows, student, constants):
    """Total and sums, without a gradient."""
    parts, of_part = _in_parts(losses, num_rows, student, constants)

    def add(sums, part):
        found = of_part(student.replace(hidden=part[0]), part)
        return jax.tree.map(jnp.add, sums, found), None

    found, _ = jax.lax.scan(add, _zeros(of_part, student, parts), parts)
    return found, None


def _of_all_and_gradient(losses, num_rows, student, constants):
    """Total and sums; and the gradient of the total, like `student`."""
    parts, of_part = _in_parts(losses, num_rows, student, constants)
    head = student.replace(hidden=None)

    def add(carry, part):
        def value(head, hidden):
            return of_part(head.replace(hidden=hidden), part)

        found, (of_head, of_hidden) = jax.value_and_grad(
            value, argnums=(0, 1), has_aux=True
        )(head, part[0])
        return jax.tree.map(jnp.add, carry, (found, of_head)), of_hidden

    # Summed up in float32 whatever the parameters are.
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, _dtype(x)), head)
    start = _zeros(of_part, student, parts), zeros
    (found, of_head), of_hidden = jax.lax.scan(add, start, parts)
    of_head = jax.tree.map(lambda x, like: x.astype(like.dtype), of_head, head)
    of_hidden = of_hidden.reshape(-1, of_hidden.shape[-1])[: len(student.hidden)]
    return found, of_head.replace(hidden=of_hidden)


def _in_parts(losses, num_rows, student, constants):
    """All that has rows, cut into parts of so many; and what is computed of a part."""
    weights, teacher, batch, row_weights = constants
    n = len(student.hidden)
    scalars = {name: x for name, x in batch.items() if not jnp.ndim(x)}
    rows = {"mask": jnp.ones(n, bool)} | {
        name: x for name, x in batch.items() if jnp.ndim(x)
    }

    ours = student.emptied(rows["mask"]).hidden
    theirs = teacher and teacher.emptied(rows["mask"]).rows
    parts = _split((ours, theirs, rows, row_weights.T), num_rows)

    def of_part(student, part):
        _, theirs, rows, row_weights = part
        ours = Outputs(student.logits())
        asked = teacher and teacher.with_rows(theirs).outputs()
        seen = rows | scalars

        def of(loss):
            return loss.per_example((), *taken_together(loss, ours, asked, seen), seen)

        sums = jnp.stack(
            [
                jnp.vdot(own, of(loss))
                for loss, own in zip(losses, row_weights.T, strict=True)
            ]
        )
        return jnp.vdot(weights, sums), sums

    return parts, of_part


def _split(arrays, num_rows):
    """Arrays with the same rows, cut into parts of so many."""

    def split(x):
        size = min(num_rows, len(x))
        num_parts = -(-len(x) // size)
        # What fills the last one up is masked.
        fill = num_parts * size - len(x)
        filled = jnp.pad(x, [(0, fill), *[(0, 0)] * (x.ndim - 1)])
        return filled.reshape(num_parts, size, *x.shape[1:])

    return jax.tree.map(split, arrays)


def _zeros(of_part, student, parts):
    """Of the types of what is computed of a part."""
    first = jax.tree.map(lambda x: x[0], parts)
    found = jax.eval_shape(of_part, student.replace(hidden=first[0]), first)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), found)


def _dtype(*arrays):
    return jnp.result_type(*arrays, jnp.float32)
