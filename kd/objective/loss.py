"""What a loss is.

A `Loss` gives one number per example, so that masking, averaging, weighting and
reporting happen in a mix, once, for all of them.
"""

import abc
import dataclasses
from typing import TYPE_CHECKING

from jaxtyping import Array, Float, PRNGKeyArray

from kd.objective.chunked import OverRows, equal_weights
from kd.types import Batch, Embedding, Head, Metrics, Outputs, Params, TopLogits, Weight

if TYPE_CHECKING:
    from kd.objective.mix import Mix


class Loss(abc.ABC):
    """Something to minimise, example by example.

    Subclasses are frozen dataclasses. `loss * weight` makes a term, `+` a mix.
    """

    name: str
    """Of the loss in metrics and overrides; a class attribute."""
    row_by_row: bool = False
    """Whether a row's value depends on the logits of that row alone; a class attribute.
    Those of a large vocabulary then need not be there all at once, see
    `kd.objective.chunked`; a loss that does not say so is given all of them."""
    coarsens: bool = False
    """Whether classes may be taken together, a class attribute: of the coarser
    predictions the loss is then at most what it is of the full ones, as every
    f-divergence. It needs no more of a teacher than `kd.types.TopLogits`."""

    def init(
        self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None
    ) -> Params:
        """Makes the loss's own learnable parameters; () where it has none.

        Args:
            key: of their randomness.
            student: what the student gives, as shapes and dtypes only.
            teacher: likewise, or None.
        """
        del key, student, teacher
        return ()

    @abc.abstractmethod
    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        """Loss of every example in nats (or the loss's own unit), 0 where masked.

        Args:
            params: what `init` returned, as trained so far.
            student: outputs of the student, `logits` [b, v].
            teacher: outputs of the teacher, or None if `needs_teacher` is False.
            batch: the batch both have seen, with `labels` and `mask`; in a mix also
                the optimizer step as `step`. Where labels are hidden, see
                `reads_labels`; where answers are, see `needs_teacher`.
        """

    def per_example_with_metrics(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[Float[Array, "b"], Metrics]:
        """`per_example`, and scalars to watch that its computation gives for little.

        No gradient flows through the metrics. None by default.
        """
        return self.per_example(params, student, teacher, batch), {}

    def over_rows(
        self, batch: Batch, student: Head, teacher: Head | TopLogits | None
    ) -> OverRows | None:
        """Its mean over a batch without all logits at once; None where it needs them.

        Either row by row, which a mix then does for all its terms together, or by
        values that a loss finds from the heads in its own way. A loss that is
        `row_by_row` needs to say no more.

        Args:
            batch: as `per_example` gets it in a mix.
            student: what makes the logits of all rows.
            teacher: likewise, or the largest logits of all rows; None if
                `needs_teacher` is False.
        """
        del student, teacher
        if not self.row_by_row:
            return None
        return OverRows(self, batch, equal_weights(batch["mask"]), {})

    @property
    def needs_teacher(self) -> bool:
        """Whether it reads the teacher: a mix then masks examples without an answer.

        The logits of an answer that was not asked for are NaN.
        """
        return True

    @property
    def reads_hidden(self) -> bool:
        """Whether it reads more of the teacher than logits: hidden states, attention.

        Such a teacher runs in every step, unless `embeddings` is all that is read.
        """
        return False

    @property
    def reads_logits(self) -> bool:
        """Whether it reads the teacher's logits, which must then be of the task."""
        return self.needs_teacher

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        """Vectors of the teacher that can, or have to, come with the batch.

        Where some are of the examples themselves, they are all that it reads of hidden
        states, and it takes them for these. Those of classes it finds in the batch by
        their names.
        """
        return ()

    def problem(self, num_rows: int) -> str:
        """What speaks against batches, or parts, of so many rows; "" if nothing."""
        del num_rows
        return ""

    def problem_within(self, num_steps: int) -> str:
        """What speaks against the schedules of its settings in a run of so many steps.

        Empty if nothing does.
        """
        del num_steps
        return ""

    @property
    def reads_classes(self) -> bool:
        """Whether it takes outputs for logits of classes, which numbers are not."""
        return True

    @property
    def reads_labels(self) -> bool:
        """Whether it reads `batch["labels"]`: a mix then masks examples without one.

        A hidden label is -1, or NaN as a number, and whoever reads it gets NaN.
        """
        return False

    @property
    def tail_temperature(self) -> float | None:
        """At which classes add up that are taken together; None where they may not."""
        return getattr(self, "temperature", 1.0) if self.coarsens else None

    @property
    def compares_views(self) -> bool:
        """Whether a second view of every example stands in the teacher's place."""
        return False

    @property
    def of_tokens(self) -> bool:
        """Whether it takes logits of sequences, [b, n, v], rather than [b, v]."""
        return False

    def __mul__(self, weight: Weight) -> "Mix":
        from kd.objective.mix import Mix, Term  # of losses, which it needs first

        return Mix((Term(weight, self),))

    __rmul__ = __mul__

    def __add__(self, other: "Loss | Mix") -> "Mix":
        return 1.0 * self + other


@dataclasses.dataclass(frozen=True)
class Wrapper(Loss):
    """A loss that hands another one something else to look at, or other settings.

    It has the name of that loss, and asks for what that loss asks for. Subclasses are
    frozen dataclasses that define `per_example_with_metrics`; one with checks of its
    own calls `super().__post_init__()`.

    Args:
        loss: the other one.
    """

    loss: Loss

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.loss.name)

    @property
    def needs_teacher(self) -> bool:
        return self.loss.needs_teacher

    @property
    def reads_hidden(self) -> bool:
        return self.loss.reads_hidden

    @property
    def reads_logits(self) -> bool:
        return self.loss.reads_logits

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        return self.loss.embeddings

    @property
    def reads_classes(self) -> bool:
        return self.loss.reads_classes

    @property
    def reads_labels(self) -> bool:
        return self.loss.reads_labels

    @property
    def tail_temperature(self) -> float | None:
        return self.loss.tail_temperature

    @property
    def compares_views(self) -> bool:
        return self.loss.compares_views

    @property
    def of_tokens(self) -> bool:
        return self.loss.of_tokens

    def problem(self, num_rows: int) -> str:
        return self.loss.problem(num_rows)

    def problem_within(self, num_steps: int) -> str:
        return self.loss.problem_within(num_steps)

    def init(
        self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None
    ) -> Params:
        return self.loss.init(key, student, teacher)

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        return self.per_example_with_metrics(params, student, teacher, batch)[0]

    @abc.abstractmethod
    def per_example_with_metrics(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[Float[Array, "b"], Metrics]:
        """The losses, through the other one's own method of this name."""
