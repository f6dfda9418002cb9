"""The logits of a model, or what else it says, on a split."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from kd.data.pipeline import fill_rows, plan_in_order
from kd.data.task import Split
from kd.evaluate.target import Target
from kd.train.mesh import gathered, rows_here, shard_batch
from kd.types import Batch, Decoder, Model, Outputs, Params


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


def keeper(target: Target) -> Callable[[Outputs, Batch], Any]:
    """What a target keeps of a network's outputs for a batch."""

    def keep(outputs: Outputs, batch: Batch) -> Any:
        return target.keep(outputs.logits, batch)

    return keep


def keeper_beside(target: Target) -> Callable[[Outputs, Batch], Any]:
    """The same of the outputs of `beside`."""

    def keep(outputs: Outputs, batch: Batch) -> Any:
        (teacher,) = outputs.hidden
        return target.keep_beside(outputs.logits, teacher, batch)

    return keep


def beside(student: Model, teacher: Model) -> Model:
    """A student whose outputs have its teacher's logits as the only hidden state.

    Its parameters are (the student's, the teacher's).
    """

    def apply(params: Any, batch: Batch, key: Any) -> Outputs:
        ours, theirs = params
        answer = teacher.apply(theirs, batch, key)
        return Outputs(student.apply(ours, batch, key).logits, (answer.logits,))

    return Model(student.init, apply)


def as_one(teachers: Sequence[Model], combine: Callable[[list[Any]], Any]) -> Model:
    """Several networks as one that gives combined logits, of a tuple of parameters."""

    def apply(params: Any, batch: Batch, key: Any) -> Outputs:
        answers = [
            teacher.apply(own, batch, key).logits
            for teacher, own in zip(teachers, params, strict=True)
        ]
        return Outputs(together(answers))

    def together(logits: list[Any]) -> Any:
        return logits[0] if len(logits) == 1 else combine(logits)

    def start(params: Any, batch: Batch, room: int) -> tuple[Any, Any]:
        begun = [
            decoder.start(own, batch, room)
            for decoder, own in zip(decoders, params, strict=True)
        ]
        return together([logits for logits, _ in begun]), tuple(c for _, c in begun)

    def step(params: Any, cache: Any, tokens: Any) -> tuple[Any, Any]:
        done = [
            decoder.step(own, one, tokens)
            for decoder, own, one in zip(decoders, params, cache, strict=True)
        ]
        return together([logits for logits, _ in done]), tuple(c for _, c in done)

    decoders = [t.decoder for t in teachers if t.decoder is not None]
    writes = len(decoders) == len(teachers)
    return Model(teachers[0].init, apply, Decoder(start, step) if writes else None)


_MOST_ROWS = 64
"""At a time on a device: 64 rows of activations stay in a processor's cache, 256 take
half as long again."""
_MOST_LOGITS = 2**25
"""Of all rows at a time on a device, 128 MiB: of texts, fewer rows have as many."""


class _Asked(NamedTuple):
    """A network compiled to say something of some examples of a split."""

    num_rows: Callable[[Params, Split], int]
    """Of a batch."""
    answer: Callable[[Params, Split, Int[np.ndarray, "b"], int], Any]
    """(parameters, split, examples of a group, rows) -> arrays [rows, ...]"""


def _asked(model: Model, mesh: Mesh, of: Callable[[Outputs, Batch], Any]) -> _Asked:
    known: dict[Any, int] = {}

    def num_rows(params, split) -> int:
        # Of all groups as many: a batch of another number would be compiled anew.
        largest = split.inputs(np.array([split.groups.argmax()]))
        shapes = tuple((name, values.shape) for name, values in largest.items())
        if shapes not in known:
            outputs = jax.eval_shape(model.apply, params, largest, None)
            fit = _MOST_LOGITS // max(math.prod(outputs.logits.shape[1:]), 1)
            known[shapes] = mesh.size * min(max(fit, 1), _MOST_ROWS)
        return known[shapes]

    # Each process has its own rows to give.
    spans = rows_here(mesh.size, mesh) is not None
    by_rows = NamedSharding(mesh, PartitionSpec("data")) if spans else None

    @functools.partial(jax.jit, out_shardings=by_rows)
    def answer(params, batch):
        return of(model.apply(params, batch, None), batch)

    def batch_of(split, index, rows):
        padded = fill_rows(index, rows)
        here = rows_here(rows, mesh)
        ours = padded if here is None else padded[here]
        return shard_batch(split.inputs(ours), mesh, rows)

    return _Asked(
        num_rows,
        lambda params, split, index, rows: answer(params, batch_of(split, index, rows)),
    )


def predictor(
    model: Model,
    *,
    mesh: Mesh,
    of: Callable[[Outputs, Batch], Any] = logits,
) -> Predict:
    """The function of a network: float32 logits, unless told otherwise.

    Compiled once per shape of inputs, however often it is called.

    Args:
        model: asked.
        mesh: of the devices to compute on.
        of: what to keep of the outputs for a batch, if not the logits: arrays
            [b, ...], or a tree of them.

    Returns:
        The function; it gives arrays [num_examples, ...] in the order of the split.
    """
    num_rows, answer = _asked(model, mesh, of)

    def predict(params, split, about=None):
        if about is None:
            about = np.arange(len(split))
        rows = num_rows(params, split)
        plan = plan_in_order(split.groups[about], batch_size=rows)
        found = [answer(params, split, about[index], rows) for index in plan]
        order = np.concatenate(plan)

        def in_order(*parts):
            values = _joined(
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


def streamer(
    model: Model, *, mesh: Mesh, of: Callable[[Outputs, Batch], Any]
) -> Callable[[Params, Split, Int[np.ndarray, "q"]], Iterator[Any]]:
    """As `predictor`, batch by batch: no more than two are in memory.

    Returns:
        The function of parameters, a split and examples of it, in the order of their
        groups; it gives arrays [b, ...], or trees of them, of the first b examples, of
        the next, and so on. From wherever a batch begins the rest are the same.
    """
    num_rows, answer = _asked(model, mesh, of)

    def stream(params, split, about):
        rows = num_rows(params, split)
        before = None
        for index in plan_in_order(split.groups[about], batch_size=rows):
            found = answer(params, split, about[index], rows)
            # The devices are at work while what they made before is looked at.
            if before is not None:
                yield fetched(*before)
            before = found, len(index)
        if before is not None:
            yield fetched(*before)

    def fetched(found, num):
        return jax.tree.map(lambda x: gathered([x], mesh)[0][:num], found)

    return stream


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of all parts; those of texts are filled up with zeros to the widest."""
    shape = np.max([part.shape[1:] for part in parts], axis=0)
    if all(part.shape[1:] == tuple(shape) for part in parts):
        return np.concatenate(parts)
    whole = np.zeros((sum(map(len, parts)), *shape), parts[0].dtype)
    first = 0
    for part in parts:
        own = (slice(first, first + len(part)), *map(slice, part.shape[1:]))
        whole[own] = part
        first += len(part)
    return whole
