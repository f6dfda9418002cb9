"""Stopping when asked to, at a moment of our choice.

One process notes the signal and stops after the step at hand. Of several (`kd.hosts`)
JAX has all stop after the same step, whichever of them the signal came to.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import TypeVar

from kd import hosts

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
    _num_asked = 0
    """Of all contexts together, since JAX counts on and on."""

    def asked(self) -> int | None:
        """The signal that asked to stop now; None to go on. Once a step."""
        if not hosts.several():
            return self.number
        from jax.experimental import multihost_utils

        StopSignals._num_asked += 1
        reached = multihost_utils.reached_preemption_sync_point(self._num_asked)
        return signal.SIGTERM if reached else None

    def unless_stopped(self, work: Callable[[], T]) -> T | None:
        """What `work` returns; None where a signal asked to stop before its end.

        For what may take long, can be done again and is not None. Several processes
        do it to the end, because none can do it without the others.
        """
        if hosts.several():
            return work()
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
        handlers = {signal.SIGTERM: self._note, signal.SIGINT: self._note}
        if hosts.several():  # SIGTERM is noted by JAX, and tells the others.
            handlers = {signal.SIGINT: _pass_on}
        for number, handler in handlers.items():
            try:
                self._before[number] = signal.signal(number, handler)
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


def _pass_on(number: int, frame: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
