"""Experiments changed from the command line, written as JSON, compared."""

import contextlib
import dataclasses
import difflib
import hashlib
import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp

from kd.data.sample import Sampled
from kd.data.task import Task
from kd.errors import UserError
from kd.evaluate.metric import Metric
from kd.experiment import Experiment, Network, network_in, shared_data
from kd.models import saved
from kd.networks.kept import Keep, keep_in
from kd.networks.place import model_place
from kd.objective import Mix, Term
from kd.procedures.online import Peer
from kd.views.view import View

_MEMBERS = (Network, Peer, View)
"""Records that fields hold several of."""


def override(record: Any, *assignments: str) -> Any:
    """A copy of a record with some fields changed, all at once.

    Args:
        record: a dataclass, e.g. an `Experiment`.
        assignments: "path.to.field=value". Terms of an objective go by the name of
            their loss: "objective.sinkd.weight=0.5", "objective.kl.temperature=4".

    Raises:
        UserError: no such field, or a value that does not fit its type or the others.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path or not path.isprintable():
            raise UserError(f"{assignment!r:.80}: expected field=value")
        if _SHARED.match(path):
            raise UserError(
                f"{path}: the teacher has the student's data; set "
                f"{_SHARED.sub('', path)} instead"
            )
        *groups, field = _full(path)
        node = changes
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise UserError(f"{path}: {group} is set as a whole as well")
        if isinstance(node.get(field), dict):
            raise UserError(f"{path}: parts of it are set as well")
        node[field] = text
    return _replace(record, changes, ())


# It follows the student's, but for the sample: see `Experiment.sharing_data`.
_OWN = "|".join(field.name for field in dataclasses.fields(Sampled))
_SHARED = re.compile(rf"(teacher|teachers\.\d+)\.recipe\.(?=data\.(?!({_OWN})$))")


def _full(path: str) -> list[str]:
    """The parts of a path; "teacher" is the first of the teachers, or all of them."""
    parts = []
    names = path.split(".")
    for i, name in enumerate(names):
        last = i == len(names) - 1
        parts += [name] if name != "teacher" else ["teachers"] + ([] if last else ["0"])
    return parts


def _short(text: str) -> str:
    """A value as part of a line."""
    shown = text if text.isprintable() else repr(text)
    return shown if len(shown) <= 80 else shown[:80] + "…"


def _shown(path: tuple[str, ...]) -> str:
    return ".".join(path).replace("teachers.0", "teacher")


def _replace(
    record: Any,
    changes: dict[str, Any],
    path: tuple[str, ...],
    data: Task | None = None,
) -> Any:
    """A copy with changes inside; recipes of the same task get `data` too."""
    if isinstance(record, Experiment):
        record, changes = _with_start(record, changes)
    children = _children(record)
    new = {}
    if isinstance(record, Experiment):
        if data is not None and (shared := shared_data(data, record.data)):
            new["data"] = shared
        # First, since it goes to the recipes.
        changes = dict(sorted(changes.items(), key=lambda item: item[0] != "data"))
    for name, change in changes.items():
        where = _shown((*path, name))
        data = new.get("data", data)
        if name not in children:
            raise _unknown(path, name, children)
        value, expected = children[name]
        if isinstance(change, dict):
            if not _children(value):
                raise UserError(f"{where} has no fields")
            value = new.get(name, value)
            new[name] = _replace(value, change, (*path, name), data)
        else:
            try:
                new[name] = _parse(change, value, expected)
            except ValueError as error:
                raise UserError(f"{where}={_short(change)}: {error}") from error
    try:
        return _with_children(record, new)
    except ValueError as error:
        whole = f"{_shown(path)}." if path else ""
        texts = [(k, text) for k, text in changes.items() if isinstance(text, str)]
        changed = ", ".join(f"{whole}{name}={_short(text)}" for name, text in texts)
        raise UserError(f"{changed}: {error}" if changed else str(error)) from error


def no_field(records: Iterable[Any], path: str) -> UserError | None:
    """What is wrong with a path that is a field of none of these records.

    Returns:
        The error, which names the fields there are where the path goes wrong, of those
        records in which it leads furthest; None where one of them has the field.
    """
    names = _full(path)
    reached: list[tuple[int, list[str]]] = []
    for record in records:
        for depth, name in enumerate(names):
            children = _children(record)
            if name not in children:
                reached.append((depth, [*children]))
                break
            record = children[name][0]
        else:
            return None
    furthest = max(depth for depth, _ in reached)
    known = dict.fromkeys(n for depth, own in reached if depth == furthest for n in own)
    return _unknown(tuple(names[:furthest]), names[furthest], known)


def _unknown(path: tuple[str, ...], name: str, known: Iterable[str]) -> UserError:
    known = [*known]
    if not known:
        return UserError(f"{_shown(path)} has no fields")
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return UserError(
        f"{_shown((*path, name))}: no field {name!r} in "
        f"{_shown(path) or 'the experiment'}{hint} (fields: {', '.join(known)})"
    )


def _with_start(record: Experiment, changes: Any) -> tuple[Experiment, Any]:
    """A place to start from brings the student's sizes, unless some are set."""
    text = changes.get("start")
    if not isinstance(text, str) or text.lower() == "none":
        return record, changes
    if "student" not in changes:
        return record, {**changes, "student": "none"}
    try:
        place = network_in(text).place
    except ValueError as error:
        raise UserError(f"start={_short(text)}: {error}") from error
    found = saved.read_config(model_place(place)).network
    return dataclasses.replace(record, student=found), changes


def _children(record: Any) -> dict[str, tuple[Any, Any]]:
    """Names, values and types of what can be changed inside."""
    if isinstance(record, Mix):
        return {term.loss.name: (term, Term) for term in record.terms}
    if isinstance(record, Term):
        return {"weight": (record.weight, float)} | _children(record.loss)
    if isinstance(record, tuple) and record and isinstance(record[0], _MEMBERS):
        return {str(i): (member, type(member)) for i, member in enumerate(record)}
    if dataclasses.is_dataclass(record):
        # Of a module that another one of the same name may have replaced: `catalog`.
        names = getattr(type(record).__init__, "__globals__", None)
        hints = typing.get_type_hints(type(record), localns=names)
        return {
            field.name: (getattr(record, field.name), hints[field.name])
            for field in dataclasses.fields(record)
        }
    return {}


def _with_children(record: Any, new: dict[str, Any]) -> Any:
    if isinstance(record, Mix):
        return Mix(tuple(new.get(term.loss.name, term) for term in record.terms))
    if isinstance(record, Term):
        own = {name: value for name, value in new.items() if name != "weight"}
        weight = new.get("weight", record.weight)
        return Term(weight, _with_children(record.loss, own))
    if isinstance(record, tuple):
        return tuple(new.get(str(i), member) for i, member in enumerate(record))
    return dataclasses.replace(record, **new)


def _parse(text: str, current: Any, expected: Any) -> Any:
    if expected == tuple[Network, ...]:
        places = [] if text.lower() == "none" else text.split(",")
        changes = [network.change for network in current] + [None] * len(places)
        return tuple(network_in(*both) for both in zip(places, changes, strict=False))
    if expected is Keep:
        return keep_in(text)
    origin = typing.get_origin(expected)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none" and type(None) in typing.get_args(expected):
            return None
        choices = [t for t in typing.get_args(expected) if t is not type(None)]
        for other in choices[:-1]:
            with contextlib.suppress(ValueError):
                return _parse(text, current, other)
        expected = choices[-1]
        if expected is Network:
            return network_in(text, current.change if current else None)
        origin = typing.get_origin(expected)
    if _children(current):
        raise ValueError(f"it is a group; set one of {', '.join(_children(current))}")
    if origin is typing.Literal:
        choices = typing.get_args(expected)
        if text not in choices:
            raise ValueError(f"expected {' or '.join(choices)}, got {text!r:.80}")
        return text
    if origin is tuple:
        element, *rest = typing.get_args(expected)
        parts = [part for part in text.split(",") if part]
        if rest != [...] and len(parts) != 1 + len(rest):
            raise ValueError(f"expected {1 + len(rest)} values between commas")
        return tuple(_parse(part, None, element) for part in parts)
    if expected is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"expected true or false, got {text!r:.80}")
        return text.lower() == "true"
    if expected in (int, float):
        try:
            number = expected(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            kind = "a whole number" if expected is int else "a finite number"
            raise ValueError(f"expected {kind}, got {text!r:.80}")
        return number
    if expected is str:
        return text
    raise ValueError("it cannot be changed from the command line")


def to_json(value: Any) -> Any:
    """The record as plain JSON, with the class of everything named."""
    if isinstance(value, Mix):
        return {term.loss.name: to_json(term) for term in value.terms}
    if isinstance(value, Term):
        return {"weight": to_json(value.weight)} | to_json(value.loss)
    if isinstance(value, Metric):
        return value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: to_json(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
        return {"class": type(value).__name__} | fields
    if isinstance(value, tuple | list):
        return [to_json(element) for element in value]
    if isinstance(value, types.FunctionType):
        return _function_to_json(value)
    if isinstance(value, jnp.ufunc):
        return {"function": repr(value)}
    if isinstance(value, str | int | float | None):
        return value
    raise TypeError(f"{value!r} cannot be recorded; make it a frozen dataclass")


def _function_to_json(function: types.FunctionType) -> Any:
    """A schedule of optax is a closure: what it closes over makes it what it is."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    # A variable that its maker never set, such as a bound that was not asked for.
    enclosed = {
        name: cell.cell_contents for name, cell in cells if cell != types.CellType()
    }
    recorded = {
        "function": f"{function.__module__}.{function.__qualname__}",
        "with": {name: to_json(value) for name, value in enclosed.items()},
    }
    if not function.__module__.startswith("optax."):
        # A name says nothing of a function that somebody may edit.
        recorded["code"] = _code_fingerprint(function)
    return recorded


def _code_fingerprint(function: types.FunctionType) -> str:
    """Of what a function does, and of the numbers that it reads from its module."""
    read = {
        name: function.__globals__[name]
        for name in function.__code__.co_names
        if isinstance(function.__globals__.get(name), str | int | float | tuple)
    }
    parts = [*_code(function.__code__), function.__defaults__, read]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _code(code: types.CodeType) -> list[Any]:
    constants = [
        _code(c) if isinstance(c, types.CodeType) else c for c in code.co_consts
    ]
    return [code.co_code, constants, code.co_names]


def identity(tree: Any) -> Any:
    """A JSON tree without the fields that have no influence on the results."""
    if isinstance(tree, dict):
        # The best of many evaluations is another one than the best of few.
        counts = ("evaluate_every",) if tree.get("keep_best") else ()
        return {
            name: identity(value)
            for name, value in tree.items()
            if (name not in _HARMLESS or name in counts)
            and (name, value) not in _AS_BEFORE
            and not (name == "pruning" and not value["share"])
        }
    return [identity(node) for node in tree] if isinstance(tree, list) else tree


# How often something is shown or saved, and where on this machine the records lie.
_HARMLESS = (
    "evaluate_every", "save_every", "log_every", "source", "directory", "place"
)  # fmt: skip
# What was so before there was such a field: runs of then are found again.
_AS_BEFORE = (
    ("keep_best", False),
    ("checkpoint", "last"),
    ("unanswered", 0.0),
    ("teacher_weights", []),
    ("head_dropout", None),
    ("variant", "bert"),
    ("keep", {"class": "Dense"}),
)


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where two JSON trees differ, one "path: theirs -> ours" each."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            line
            for key in sorted(ours.keys() | theirs.keys())
            for line in differences(
                ours.get(key), theirs.get(key), f"{path}.{key}".lstrip(".")
            )
        ]
    return [] if ours == theirs else [f"{path}: {theirs} -> {ours}"]
