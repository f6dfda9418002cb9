"""A trained network from its place, checked against what it must agree with."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from kd.data.task import Prepared, Split, Task
from kd.errors import UserError
from kd.models import saved
from kd.networks.change import Change
from kd.types import Architecture, ComputeDtype, Model, Params


class Found(NamedTuple):
    """Where a trained network is, and what is done to it."""

    place: str
    """Directory or hub name, with its config, weights and preprocessing."""
    source: str
    """Where it comes from, for the record."""
    change: Change | None = None


class Loaded(NamedTuple):
    """A frozen network, ready to be asked."""

    model: Model
    params: Params
    source: str
    fingerprint: str
    """Of everything that its answers depend on, beside the input."""
    other_outputs: str = ""
    """What its outputs are, where they are not those of the task."""


class Start(NamedTuple):
    """What a student begins with."""

    network: Architecture
    params: Params
    fresh: tuple[str, ...]
    """Modules that it has no weights for; its head, if that is of other outputs."""
    source: str


def sizes(found: Found) -> Architecture:
    """The network's sizes, after its change, without its weights.

    Raises:
        UserError: there is no network, or it cannot be changed so.
    """
    return _changed(found, saved.read_config(found.place).network, None)[0]


def check_preprocessing(found: Found, task: Task, data: Prepared, other: str) -> None:
    """Raises UserError unless the network reads inputs as `data` were made.

    Args:
        found: the network.
        task: the student's.
        data: the student's.
        other: whose inputs these are, for the message.
    """
    if task.preprocessing(found.place) != data.preprocessing:
        raise other_inputs(found.place, other, task)
    size = getattr(sizes(found), "vocab_size", None)
    if size is not None and data.vocab_size > size:
        raise UserError(
            f"{found.place}: its tokenizer has {data.vocab_size} tokens, the network "
            f"embeddings for {size}"
        )


def other_inputs(place: str, other: str, task: Task) -> UserError:
    """That networks in two places read different inputs."""
    vocabulary = (
        "; losses of tokens need a shared vocabulary, all but ULD and MultiLevelOT, "
        "which compare predictions over two (kd.divergences)"
        if task.target.of_tokens
        else ""
    )
    return UserError(
        f"{place}: its tokenizer or normalization is not that of {other}; all networks "
        f"of a run must see the same inputs{vocabulary}"
    )


def check_outputs(place: str, task: Task) -> None:
    """Raises UserError unless the network in a place gives what the task asks for."""
    if differs := other_outputs(saved.read_config(place).labels, task):
        raise UserError(f"{place}: {differs}")


def other_outputs(labels: Sequence[str], task: Task) -> str:
    """How a network's outputs are not those of a task; empty if they are."""
    if len(labels) != len(task.labels):
        what = "classes" if task.target.has_classes else "outputs"
        return f"the teacher has {len(labels)} {what}, the task has {len(task.labels)}"
    if not same_labels(labels, task.labels):
        return (
            f"the teacher's classes are {', '.join(map(str, labels))} "
            f"in this order, the task's {', '.join(task.labels)}"
        )
    return ""


def load(
    found: Found,
    task: Task,
    data: Prepared,
    dtype: ComputeDtype,
    *,
    any_outputs: bool = False,
) -> Loaded:
    """Loads a trained network to be asked about the examples of a task.

    Args:
        found: where it is. Its preprocessing has been checked.
        task: of the student.
        data: of the student.
        dtype: of its activations.
        any_outputs: whether it may answer something else than the task asks, or
            nothing, since only its hidden states are read.

    Raises:
        UserError: there is no fine-tuned network, its classes are not those of the
            task, or it cannot read the examples.
    """
    network, labels = saved.read_config(found.place)
    differs = other_outputs(labels, task)
    if differs and not any_outputs:
        raise UserError(f"{found.place}: {differs}")
    batch = longest(data.train)

    def build(network: Architecture) -> Model:
        return of_outputs(network, len(labels) if differs else None, task, data, dtype)

    model = build(network)
    try:
        template = jax.eval_shape(model.init, jax.random.key(0), batch)
        jax.eval_shape(model.apply, template, batch, None)
    except UserError as error:
        raise UserError(f"{found.place}: {error}") from error
    params, fresh, _ = saved.load(found.place, network, template)
    if fresh and not any_outputs:
        raise UserError(
            f"{found.place} has no {' and no '.join(fresh)}: it is not fine-tuned, so "
            "it can be no teacher"
        )
    if fresh:
        differs = f"the teacher has no {' and no '.join(fresh)}"
        params = _with_fresh(model, params, fresh, batch)
    network, params = _changed(found, network, params)
    fingerprint = fingerprint_of(f"{network} {dtype}", params)
    return Loaded(build(network), params, found.source, fingerprint, differs)


def of_outputs(
    network: Architecture,
    num_others: int | None,
    task: Task,
    data: Prepared,
    dtype: ComputeDtype,
) -> Model:
    """A frozen network with its outputs.

    Args:
        network: its sizes.
        num_others: how many, if they are not those of the task; else None.
        task: of the student.
        data: of the student.
        dtype: of its activations.
    """
    if num_others is not None:
        return network.build(max(num_others, 1), compute_dtype=dtype)
    return task.build(network, vocab_size=data.vocab_size, compute_dtype=dtype)


def fingerprint_of(network: str, params: Params) -> str:
    """SHA-256 of a network, in words, and its weights."""
    digest = hashlib.sha256(network.encode())
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def load_start(found: Found, task: Task, data: Prepared) -> Start:
    """Loads a trained network to go on from, whatever its outputs were.

    Raises:
        UserError: there is none, or it cannot be changed as it should.
    """
    network, labels = saved.read_config(found.place)
    model = network.build(max(len(labels), 1))
    batch = {"tokens": np.zeros((1, 1), np.int32)} | longest(data.train)
    # Shapes first: a config may name sizes that no memory holds, and the weights not.
    template = jax.eval_shape(model.init, jax.random.key(0), batch)
    params, missing, _ = saved.load(found.place, network, template)
    if missing:
        params = _with_fresh(model, params, missing, batch)
    network, params = _changed(found, network, params)
    same = len(labels) == len(task.labels) and same_labels(labels, task.labels)
    fresh = tuple(dict.fromkeys((*missing, *(() if same else ("classifier",)))))
    return Start(network, params, fresh, found.source)


def _with_fresh(
    model: Model, params: Params, missing: Sequence[str], batch: Any
) -> Params:
    """The parameters with the initial ones of modules that they lack."""

    def made(key, batch):
        fresh = model.init(key, batch)
        return {module: fresh[module] for module in missing}

    return {**params, **jax.jit(made)(jax.random.key(0), batch)}


_FREE = (
    *("dropout", "attention_dropout", "embedding_dropout"),
    *("initializer_stddev", "remat", "vocab_size"),
)
"""Sizes that may differ from those of the network to start from: rates and what memory
is spared are the run's own, and the vocabulary is that of the start."""


def check_same(wanted: Any, found: Any, place: str) -> None:
    """Checks that the student is the network that it is to start from.

    Args:
        wanted: the student, an architecture.
        found: the one in the place.
        place: of the network to start from.

    Raises:
        UserError: they differ; the message has all differences.
    """
    if type(wanted) is not type(found):
        raise UserError(
            f"start: {place} is a {type(found).__name__}, the student a "
            f"{type(wanted).__name__}"
        )
    differences = [
        f"{field.name} {getattr(found, field.name)}, not {getattr(wanted, field.name)}"
        for field in dataclasses.fields(wanted)
        if field.name not in _FREE
        and getattr(found, field.name) != getattr(wanted, field.name)
    ]
    if differences:
        raise UserError(
            f"start: {place} is not the student; it has {'; '.join(differences)}"
        )


def same_labels(found: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a network's outputs are those of a task, in order.

    Networks of the hub often say no more of them than LABEL_0, LABEL_1.
    """
    unnamed = [f"label_{i}" for i in range(len(wanted))]
    return _folded(found) in (_folded(wanted), unnamed)


def _changed(
    found: Found, network: Architecture, params: Params
) -> tuple[Architecture, Params]:
    if found.change is None:
        return network, params
    try:
        return found.change(network, params)
    except ValueError as error:
        raise UserError(f"{found.place}: {error}") from error


def _folded(labels: Sequence[str]) -> list[str]:
    return [str(label).casefold() for label in labels]


def longest(split: Split) -> dict[str, np.ndarray]:
    """Inputs of an example of the last group."""
    return split.inputs(np.array([split.groups.argmax()]))
