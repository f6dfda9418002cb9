"""A score by name: how it is computed, which way is better, and how it is shown."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score of outputs against targets, or of a student's against a teacher's.

    Attributes:
        name: in the log, the summary and the tables.
        title: on the page.
        meaning: what it says, in a few words, with its unit.
        compute: (outputs, targets) -> number, on whole splits.
        higher_is_better: its direction.
        percent: whether it is a share that is shown as a percentage.
        is_share: whether it is the share of examples that are right, so that its
            standard error is that of a share.
    """

    name: str
    title: str
    meaning: str
    compute: Callable[[np.ndarray, np.ndarray], float]
    higher_is_better: bool = True
    percent: bool = False
    is_share: bool = False

    def described(self) -> dict[str, Any]:
        """All but the function, for a summary."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "compute"
        }
