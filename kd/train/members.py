"""The runs that the same steps take further: one, or the seeds of an experiment."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from kd.errors import Diverged
from kd.train.metrics_log import MetricsLog


@dataclasses.dataclass
class Member:
    """One run.

    Attributes:
        log: where its metrics go; None for one that was finished elsewhere, whose
            place is kept so that the others stay what they are.
        name: what it is called where there are several.
        diverged: why it takes no further part; "" while it does.
    """

    log: MetricsLog | None
    name: str = ""
    diverged: str = ""


class Members:
    """All of them, by their places."""

    def __init__(self, members: Sequence[Member]):
        self._all = tuple(members)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def going_on(self) -> list[tuple[int, Member, MetricsLog]]:
        """Place, run and log of those that take part."""
        return [
            (i, member, member.log)
            for i, member in enumerate(self._all)
            if member.log is not None and not member.diverged
        ]

    def lacking_evaluation(self, step: int) -> list[tuple[int, MetricsLog]]:
        """Place and log of those whose log had no row on dev when the run resumed."""
        return [(i, log) for i, _, log in self.going_on if not log.has_evaluation(step)]

    def truncate(self, *, after: int) -> list[str]:
        """See `MetricsLog.truncate`."""
        return [
            problem
            for member in self._all
            if member.log is not None
            for problem in member.log.truncate(after=after)
        ]

    def sync(self) -> None:
        """See `MetricsLog.sync`."""
        for _, _, log in self.going_on:
            log.sync()

    def leave(self, member: Member, what: str, say: Callable[[str], Any]) -> None:
        """Takes out one that diverged; the others go on.

        Raises:
            Diverged: there is no other.
        """
        member.diverged = what
        if not self.going_on:
            raise Diverged(what)
        say(f"{member.name}: {what}; the others go on")

    def to_notes(self) -> dict[str, Any]:
        """For a checkpoint: who diverged."""
        gone = {str(i): m.diverged for i, m in enumerate(self._all) if m.diverged}
        return {"diverged": gone} if gone else {}

    def go_on_from(self, notes: dict[str, Any]) -> None:
        """Takes over what was noted at the checkpoint that training goes on from.

        Raises:
            Diverged: none was left then.
        """
        for i, what in notes.get("diverged", {}).items():
            self._all[int(i)].diverged = what
        if not self.going_on:
            raise Diverged(next(iter(notes["diverged"].values())))
