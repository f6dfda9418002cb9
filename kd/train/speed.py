"""How fast a run goes, over all its parts where it was stopped in between."""

import dataclasses
import statistics
from typing import Any

_NEWEST = 1000
"""Rates that are kept; more would make every checkpoint's notes longer."""


@dataclasses.dataclass
class Speed:
    """Seconds and examples per second of the training that led to a state.

    What was computed after the last checkpoint and is computed again counts once.

    Attributes:
        seconds: from the start of training, with compilation, evaluation and saving.
        rates: examples per second of whole blocks of steps, without these.
        rest: that of the newest other block, with a compilation if there is no other.
        partial: whether a part left no record, so that `seconds` lacks it.
    """

    seconds: float = 0.0
    rates: list[float] = dataclasses.field(default_factory=list)
    rest: float = 0.0
    partial: bool = False

    @property
    def examples_per_second(self) -> float:
        """The median over whole blocks; in a short run, of what there is."""
        return statistics.median(self.rates or [self.rest])

    def add(self, rate: float, *, whole: bool) -> None:
        """Counts a block of steps."""
        if whole:
            self.rates = [*self.rates, rate][-_NEWEST:]
        else:
            self.rest = rate

    def to_notes(self) -> dict[str, Any]:
        """For a checkpoint."""
        return dataclasses.asdict(self)

    def go_on_from(self, notes: dict[str, Any]) -> None:
        """Takes over what was noted at the checkpoint that training goes on from."""
        ours = {f.name for f in dataclasses.fields(self)} & notes.keys()
        known = Speed(**{k: notes[k] for k in ours}) if ours else Speed(partial=True)
        self.__dict__.update(vars(known))
