"""Which arrays are kept of a network's outputs, and what losses see of them."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import Array, Float, Shaped

from kd.objective import Loss
from kd.types import Outputs


class Keep(abc.ABC):
    """What is kept of a teacher's answer about an example; a frozen dataclass."""

    @abc.abstractmethod
    def problems(self, losses: Sequence[Loss], num_teachers: int) -> Iterator[str]:
        """What speaks against learning by these losses from it, a line each."""

    def for_losses(self, losses: Sequence[Loss]) -> "Keep":
        """The same, with what these losses read of it."""
        del losses
        return self


@dataclasses.dataclass(frozen=True)
class Dense(Keep):
    """All logits in float32: 4 v bytes a prediction, exact.

    At most 4 GiB, in one file; computed in memory.
    """

    def problems(self, losses: Sequence[Loss], num_teachers: int) -> Iterator[str]:
        yield from ()


class Streamed(Keep):
    """What is written as a stream while the teacher runs, and read bit by bit."""

    rules_out: frozenset[str] = frozenset()
    """Of the arrays, those where -inf is a class ruled out; a class attribute."""

    @abc.abstractmethod
    def problem(self, outputs: Outputs) -> str:
        """Why it cannot be kept of such outputs (shapes, dtypes); "" if it can."""

    @abc.abstractmethod
    def arrays(self, outputs: Outputs) -> dict[str, Shaped[Array, "b ..."]]:
        """What is written of a batch, by its names; a pure function."""

    def shared(self, outputs: Outputs) -> Any:
        """What is the same for all predictions: a tree of arrays, never written."""
        del outputs
        return ()

    @abc.abstractmethod
    def outputs(
        self, arrays: Mapping[str, Shaped[Array, "b ..."]], shared: Any
    ) -> Outputs:
        """What losses see: the inverse of the two above, up to rounding."""

    @abc.abstractmethod
    def described(self, outputs: Outputs) -> str:
        """In words, such as "top 64 of 49,152 and the tail"."""

    @abc.abstractmethod
    def errors(self, live: Outputs, told: Outputs) -> dict[str, Float[Array, "*n c"]]:
        """How what is told differs from what is so, of every prediction."""
