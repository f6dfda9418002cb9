"""Experiments by name, changed from the command line, written as JSON."""

import ast
import dataclasses
import difflib
import importlib.util
import pathlib
import types
import typing
from typing import Any

from kd.errors import UserError
from kd.experiment import Experiment, Scale
from kd.objective import Mix, Term

DIRECTORY = pathlib.Path(__file__).resolve().parent.parent / "experiments"
"""One module an experiment; its name is the experiment's."""


def names() -> list[str]:
    """All experiments, sorted."""
    return sorted(
        path.stem for path in DIRECTORY.glob("*.py") if path.stem != "__init__"
    )


def headline(name: str) -> str:
    """The first line of an experiment's docstring, without running the module."""
    module = ast.parse((DIRECTORY / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(module) or "").partition("\n")[0]


def listing() -> str:
    """Every experiment with its headline, a line each."""
    width = max(map(len, names()))
    return "\n".join(f"  {name:<{width}}  {headline(name)}" for name in names())


def load(name: str, scale: Scale) -> Experiment:
    """The experiment of a module in `experiments/`.

    Raises:
        UserError: there is no such module; the message lists those there are.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"no experiment {name!r}{hint} There are:\n{listing()}")
    module = importlib.import_module(f"experiments.{name}")
    return module.experiment(scale)


def override(record: Any, assignment: str) -> Any:
    """A copy of a record with one field changed.

    Args:
        record: a dataclass, e.g. an `Experiment`.
        assignment: "path.to.field=value". Terms of an objective go by the name of
            their loss: "objective.sinkd.weight=0.5", "objective.kl.temperature=4".

    Raises:
        UserError: no such field, or a value that does not fit its type.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise UserError(f"{assignment!r}: expected field=value")
    return _replace(record, path.split("."), text, path)


def _replace(record: Any, path: list[str], text: str, whole: str) -> Any:
    name, rest = path[0], path[1:]
    children = _children(record)
    if name not in children:
        where = whole[: -len(".".join(path))].rstrip(".") or "the experiment"
        close = difflib.get_close_matches(name, children, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(
            f"{whole}: no field {name!r} in {where}{hint} "
            f"(fields: {', '.join(children)})"
        )
    value, expected = children[name]
    try:
        if rest and not _children(value):
            raise ValueError(f"{name} has no fields")
        new = (
            _replace(value, rest, text, whole)
            if rest
            else _parse(text, value, expected)
        )
        return _with_child(record, name, new)
    except ValueError as error:
        raise UserError(f"{whole}={text}: {error}") from error


def _children(record: Any) -> dict[str, tuple[Any, Any]]:
    """Names, values and types of what can be changed inside."""
    if isinstance(record, Mix):
        return {term.loss.name: (term, Term) for term in record.terms}
    if isinstance(record, Term):
        return {"weight": (record.weight, float)} | _children(record.loss)
    if dataclasses.is_dataclass(record):
        hints = typing.get_type_hints(type(record))
        return {
            field.name: (getattr(record, field.name), hints[field.name])
            for field in dataclasses.fields(record)
        }
    return {}


def _with_child(record: Any, name: str, value: Any) -> Any:
    if isinstance(record, Mix):
        terms = tuple(value if t.loss.name == name else t for t in record.terms)
        return Mix(terms)
    if isinstance(record, Term) and name != "weight":
        return Term(record.weight, _with_child(record.loss, name, value))
    return dataclasses.replace(record, **{name: value})


def _parse(text: str, current: Any, expected: Any) -> Any:
    origin = typing.get_origin(expected)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none" and type(None) in typing.get_args(expected):
            return None
        expected = next(t for t in typing.get_args(expected) if t is not type(None))
        origin = typing.get_origin(expected)
    if hasattr(current, "from_text"):
        return current.from_text(text)
    if _children(current):
        raise ValueError(f"it is a group; set one of {', '.join(_children(current))}")
    if origin is typing.Literal:
        choices = typing.get_args(expected)
        if text not in choices:
            raise ValueError(f"expected {' or '.join(choices)}, got {text!r}")
        return text
    if origin is tuple:
        (element, *_) = typing.get_args(expected)
        return tuple(_parse(part, None, element) for part in text.split(",") if part)
    if expected is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"expected true or false, got {text!r}")
        return text.lower() == "true"
    if expected in (int, float):
        try:
            return expected(text)
        except ValueError:
            kind = "a whole number" if expected is int else "a number"
            raise ValueError(f"expected {kind}, got {text!r}") from None
    if expected is str:
        return text
    raise ValueError("it cannot be changed from the command line")


def to_json(value: Any) -> Any:
    """The record as plain JSON, with the class of everything named."""
    if isinstance(value, Mix):
        return {term.loss.name: to_json(term) for term in value.terms}
    if isinstance(value, Term):
        return {"weight": to_json(value.weight)} | to_json(value.loss)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: to_json(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
        return {"class": type(value).__name__} | fields
    if isinstance(value, tuple | list):
        return [to_json(element) for element in value]
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value


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
