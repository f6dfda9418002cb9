"""What the runs of one process share instead of making it again.

The seeds of an experiment, and the rows of a table, have the same records, the same
inputs, the same teachers and often the same compiled steps.
"""

import collections
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

_KEPT = 16
"""Things of a kind; the one that was not asked for the longest goes first."""


class Shared:
    """Keeps what was made, by kind and by everything that determines it."""

    def __init__(self) -> None:
        self._kinds: dict[str, collections.OrderedDict[Hashable, Any]] = {}

    def once(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made only the first time that kind and key are asked for.

        Args:
            kind: such as "teachers".
            key: everything that determines the result.
            make: makes it.
        """
        kept = self._kinds.setdefault(kind, collections.OrderedDict())
        if key not in kept:
            kept[key] = make()
        kept.move_to_end(key)
        if len(kept) > _KEPT:
            kept.popitem(last=False)
        return kept[key]
