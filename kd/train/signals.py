"""Stopping when asked to, at a moment of our choice."""

import signal
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# One Ctrl-C or kill may arrive twice, directly and forwarded by make or timeout.
_SAME_WISH_SECONDS = 2.0


class Interrupted(Exception):
    """A signal asked to stop, and the run did so in good order."""

    def __init__(self, number: int, outcome: str):
        super().__init__(f"stopped by {signal.Signals(number).name} {outcome}")
        self.exit_status = 128 + number


class _Abandoned(BaseException):
    """What is under way is not to be finished."""


class StopSignals:
    """A context that notes SIGTERM and SIGINT instead of dying of them.

    A second Ctrl-C, some seconds after the first, is obeyed at once.
    """

    _abandons = False

    def unless_stopped(self, work: Callable[[], T]) -> T | None:
        """What `work` returns; None where a signal asked to stop before its end.

        For what may take long, can be done again and is not None.
        """
        try:
            try:
                self._abandons = True
                return work() if self.number is None else None
            finally:
                self._abandons = False
        except _Abandoned:
            return None

    def __enter__(self) -> "StopSignals":
        self.number: int | None = None
        self._noted = 0.0
        self._before = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: signals are others' business
                break
        return self

    def _note(self, number: int, frame: object) -> None:
        again = self.number is not None
        if again and number == signal.SIGINT:
            if time.monotonic() - self._noted > _SAME_WISH_SECONDS:
                raise KeyboardInterrupt
        elif not again:
            self.number, self._noted = number, time.monotonic()
            if self._abandons:
                raise _Abandoned

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
