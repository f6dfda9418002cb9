"""The networks that learn, and the parameters that they begin with."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from kd.data.task import Prepared
from kd.errors import UserError
from kd.experiment import Experiment
from kd.models import saved
from kd.networks.load import Start
from kd.run.program import Learner
from kd.types import Architecture, Params


def networks(
    experiment: Experiment,
    data: Prepared,
    start: Start | None,
    say: Callable[[str], Any],
) -> dict[str, Architecture]:
    """The networks that learn, by their names in the procedure."""
    found = experiment.procedure.learners(_student(experiment, start, say))
    return {name: _for_vocabulary(n, data, start) for name, n in found.items()}


def first_params(
    experiment: Experiment,
    learners: Mapping[str, Learner],
    start: Start | None,
    batch: Any,
) -> dict[str, Params]:
    """What they begin with, a function of the experiment's seed.

    Raises:
        UserError: the weights to start from do not fit.
    """
    return {
        name: _first_params(experiment, name, i, learner, start, batch)
        for i, (name, learner) in enumerate(learners.items())
    }


def _student(
    experiment: Experiment, start: Start | None, say: Callable[[str], Any]
) -> Architecture:
    student = experiment.student
    if start is not None:
        new = f"; new: {', '.join(start.fresh)}" if start.fresh else ""
        say(f"weights to start from: {start.source}{new}")
        student = student or start.network
    assert student is not None
    saved.model_type(student)  # Raises now rather than after training.
    return student


def _for_vocabulary(
    network: Architecture, data: Prepared, start: Start | None
) -> Architecture:
    """With an embedding for every token, or as many as the start has."""
    if not data.vocab_size:
        return network
    size = data.vocab_size
    if start is not None:
        size = max(size, getattr(start.network, "vocab_size", 0))
    return dataclasses.replace(network, vocab_size=size)  # pyrefly: ignore


def _first_params(
    experiment: Experiment,
    name: str,
    place: int,
    learner: Learner,
    start: Start | None,
    batch: Any,
) -> Params:
    key = jax.random.key(experiment.seed)
    # Networks that learn together begin differently.
    key = jax.random.fold_in(key, place) if place else key
    fresh = learner.init(key, batch)
    if start is None or name != experiment.procedure.exported:
        return fresh
    params = dict(start.params)
    for module in start.fresh:
        params[module] = fresh[module]
    shapes, wanted = (jax.tree.map(lambda x: x.shape, tree) for tree in (params, fresh))
    if shapes != wanted:
        raise UserError(
            f"{start.source}: its weights do not fit the task's examples, such as "
            f"{next(_differing(shapes, wanted))}"
        )
    return params


def _differing(ours: Any, theirs: Any) -> Iterator[str]:
    for (path, a), (_, b) in zip(
        jax.tree.leaves_with_path(ours, is_leaf=lambda x: isinstance(x, tuple)),
        jax.tree.leaves_with_path(theirs, is_leaf=lambda x: isinstance(x, tuple)),
        strict=False,
    ):
        if a != b:
            yield f"{jax.tree_util.keystr(path)} {list(a)}, expected {list(b)}"
    yield "another tree of parameters"
