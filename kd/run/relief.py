"""Which field of an experiment lowers the largest of what a step takes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kd import config
from kd.divergences import PerSequence
from kd.divergences.batch_transport import BatchTransport
from kd.errors import UserError
from kd.experiment import Experiment
from kd.objective import Loss, Wrapper
from kd.report.quantities import size
from kd.run import requirements as r
from kd.run.requirements import Requirements

_ENOUGH = 0.8
"""Of what it was; a change that leaves more is taken only if no other leaves less."""
_TRIED = 3
"""Changes for which the step is compiled at most."""

Told = Callable[[Experiment, bool], Requirements]
"""(experiment, whether its step is compiled) -> what it takes."""


def relief(
    experiment: Experiment, found: Requirements, told: Told | None = None
) -> str:
    """The largest of what is on a device, and the field that lowers it, in a line.

    Args:
        experiment: what takes so much.
        found: what it takes.
        told: what others would take, to say by how much a field lowers it; without it
            only the field is named.
    """
    largest = found.largest
    line = f"largest: {largest.name}, {size(largest.num_bytes)}"
    changes = [*_applicable(experiment, found)]
    if not changes:
        return f"{line}: no field lowers it but the sizes of the networks"
    if told is None:
        return f"{line}: {changes[0][0]} lowers it"
    best, least = "", largest.num_bytes
    for assignment, changed in changes[:_TRIED]:
        try:
            others = told(changed, largest.name == r.TEMPORARIES)
        except (UserError, ValueError):  # such as a teacher of other sizes
            continue
        if others.of(largest.name) < least:
            best, least = assignment, others.of(largest.name)
        if least <= _ENOUGH * largest.num_bytes:
            break
    if not best:
        tried = ", ".join(assignment for assignment, _ in changes[:_TRIED])
        return f"{line}: it is no smaller with {tried}"
    parts = caveat(experiment.losses) if best.startswith("num_microbatches") else ""
    return f"{line}: {best} makes it {size(least)}{parts}"


def _applicable(
    experiment: Experiment, found: Requirements
) -> Iterator[tuple[str, Experiment]]:
    """Changes that might lower it, those first that change least of the method."""
    for assignment in _changes(experiment, found):
        try:
            yield assignment, config.override(experiment, assignment).sharing_data()
        except (UserError, ValueError):  # What does not go together with the rest.
            continue


def _changes(experiment: Experiment, found: Requirements) -> Iterator[str]:
    batch_size, parts = experiment.batch_size, experiment.num_microbatches
    match found.largest.name:
        case r.TEMPORARIES:
            if batch_size >= 4 * parts:
                yield f"num_microbatches={4 * parts}"
            if getattr(experiment.student, "remat", None) is False:
                yield "student.remat=true"
            asked = experiment.asks_teachers and experiment.answers == "live"
            if asked and not experiment.live_readers and experiment.view is None:
                yield "answers=cached"
            if found.on_accelerator and experiment.compute_dtype == "float32":
                yield "compute_dtype=bfloat16"
            if batch_size > 1:
                yield f"batch_size={batch_size // 2}"
        case r.BATCH:
            if batch_size > 1:
                yield f"batch_size={batch_size // 2}"
        case r.TEACHERS:
            teacher = experiment.teacher
            if teacher is not None and teacher.recipe is not None and not teacher.place:
                yield from _smaller("teacher.recipe.student", teacher.recipe.student)
        case _:
            has_embeddings = hasattr(experiment.student, "vocab_size")
            if found.largest.name == r.OPTIMIZER and has_embeddings:
                yield "optimizer.frozen=embeddings"
            yield from _smaller("student", experiment.student)


def _smaller(path: str, network: Any) -> Iterator[str]:
    """A network of half the depth, or half the width."""
    for name in ("num_layers", "width", "widths"):
        value = getattr(network, name, None)
        if isinstance(value, int) and value > 1:
            yield f"{path}.{name}={value // 2}"
        elif isinstance(value, tuple) and value and min(value) > 1:
            yield f"{path}.{name}={','.join(str(x // 2) for x in value)}"


def caveat(losses: Iterable[Loss]) -> str:
    """What micro-batches do to losses that compare the examples of a batch."""
    own = {loss.name: _innermost(loss) for loss in losses}
    coupled = [n for n, loss in own.items() if isinstance(loss, BatchTransport)]
    if not coupled:
        return ""
    return f"; {', '.join(coupled)} then compares examples of a part"


def _innermost(loss: Loss) -> Loss:
    """What wrappers hand on to, unless it sees one sequence at a time."""
    while isinstance(loss, Wrapper) and not isinstance(loss, PerSequence):
        loss = loss.loss
    return loss
