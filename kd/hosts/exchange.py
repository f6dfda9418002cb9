"""What one process does for all, and what all tell each other.

Every call is made by all processes, in the same order; what goes over is JSON.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any, TypeVar

from kd.errors import UserError
from kd.hosts import joining

T = TypeVar("T")

_calls = itertools.count()
_SLICE = 10_000
"""Milliseconds of a wait, which is repeated: a process that does not come because it
died ends all others anyway (`kd.hosts.joining`)."""


def of_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, which alone calls it; the others wait.

    Args:
        make: gives what can be written as JSON.

    Raises:
        UserError: the first one's.
    """
    if not joining.several():
        return make()
    key = f"kd/{next(_calls)}"
    if not joining.is_first():
        told = _get(key)
        if "error" in told:
            raise UserError(told["error"])
        return told["value"]
    try:
        value = make()
    except UserError as error:
        _set(key, {"error": str(error)})
        raise
    _set(key, {"value": value})
    return value


def then_others(work: Callable[[], T]) -> T:
    """What `work` gives here; the first process does it before the others.

    For what leaves something in a shared folder that is then found there.
    """
    if not joining.several():
        return work()
    made: list[T] = []
    of_first(lambda: made.append(work()))
    return made[0] if made else work()


def of_all(value: Any) -> list[Any]:
    """What every process has, by their numbers."""
    if not joining.several():
        return [value]
    ours, call = joining.group(), next(_calls)
    _set(f"kd/{call}/{ours.process}", value)
    return [_get(f"kd/{call}/{i}") for i in range(ours.processes)]


def agree(what: str, value: Any, advice: str) -> None:
    """Checks that all processes have the same.

    Args:
        what: it is.
        value: of this process.
        advice: what to do where it is not.

    Raises:
        UserError: in all processes, naming two that differ.
    """
    first, *others = of_all(value)
    for i, other in enumerate(others, 1):
        if other != first:
            raise UserError(
                f"{what}: {_short(first)} in {joining.name_of(0)}, {_short(other)} in "
                f"{joining.name_of(i)}; {advice}"
            )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 160 else text[:160] + "…"


def _set(key: str, value: Any) -> None:
    joining.client().key_value_set(key, json.dumps(value))


def _get(key: str) -> Any:
    while True:
        try:
            return json.loads(joining.client().blocking_key_value_get(key, _SLICE))
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
