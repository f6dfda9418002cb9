"""What a step decides about logits while it is traced, told to whoever listens."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple


class Logits(NamedTuple):
    """How a step makes logits that take much memory."""

    num_rows: int
    """Predictions that a mix is of, over all devices."""
    num_classes: int
    at_once: int
    """Of which logits are there at once, on each device; 0 for all."""
    whole_for: str = ""
    """What needs all of them, if they are there."""

    @property
    def num_bytes(self) -> int:
        """Of float32 logits of all rows."""
        return 4 * self.num_rows * self.num_classes


_LISTENERS: contextvars.ContextVar[list[Logits] | None] = contextvars.ContextVar(
    "listeners", default=None
)


def tell(decision: Logits) -> None:
    """Tells what was decided, to `decisions`."""
    listener = _LISTENERS.get()
    if listener is not None:
        listener.append(decision)


@contextlib.contextmanager
def decisions() -> Iterator[list[Logits]]:
    """Listens to what is decided meanwhile; a step decides when it is traced."""
    found: list[Logits] = []
    token = _LISTENERS.set(found)
    try:
        yield found
    finally:
        _LISTENERS.reset(token)
