"""What a network is given to write after, and how what it writes is read."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int

from kd.models.beams import Beams
from kd.models.generate import Greedy, Sample


@dataclasses.dataclass(frozen=True, eq=False)
class Prompts:
    """Texts to write after, or sources to write about."""

    tokens: Int[np.ndarray, "n w"]
    token_mask: Bool[np.ndarray, "n w"]
    shown: list[str]
    """The prompts as texts."""
    references: list[str]
    """What stands there in the data."""
    decode: Callable[[Sequence[int]], str]
    """The text of some tokens."""
    num_tokens: int
    """Written after each at most."""
    end: tuple[int, ...]
    how: Greedy | Sample | Beams = Greedy()

    def __len__(self) -> int:
        return len(self.shown)
