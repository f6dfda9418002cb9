"""A loss on one of a network's several classifiers."""

import dataclasses

from jaxtyping import Array, Float, PRNGKeyArray

from kd.errors import UserError
from kd.objective.loss import Wrapper
from kd.types import Batch, Metrics, Outputs, Params


class NoSuchHead(UserError, ValueError):
    """A classifier that the student does not have."""


@dataclasses.dataclass(frozen=True)
class OfHead(Wrapper):
    """A loss of one head of the student, and of the teacher as it is.

        loss_i of Outputs.head_logits[head]

    in place of `Outputs.logits`, the mean over heads. So DeiT's objective is

        0.5 * OfHead(CrossEntropy(), 0) + 0.5 * OfHead(HardCrossEntropy(), 1)

    with the labels for the class token and the teacher's first choices for the
    distillation token.

    Args:
        loss: the other one.
        head: which; 0 is the first.

    Raises:
        ValueError: `head` is negative; and `NoSuchHead`, from `init`, where the
            student has none.

    Source: touvron2021deit, section 3.
    """

    head: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head < 0:
            raise ValueError(f"head must be 0 or more, got {self.head}")

    @property
    def tail_temperature(self) -> None:
        """Classes are not taken together before the head is chosen."""
        return None

    def init(
        self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None
    ) -> Params:
        return self.loss.init(key, self._seen(student), teacher)

    def per_example_with_metrics(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[Float[Array, "b"], Metrics]:
        seen = self._seen(student)
        return self.loss.per_example_with_metrics(params, seen, teacher, batch)

    def _seen(self, student: Outputs) -> Outputs:
        if self.head >= len(student.head_logits):
            there = f"{len(student.head_logits)}" if student.head_logits else "one"
            raise NoSuchHead(
                f"{self.name} is of head {self.head}, and the student has {there}; a "
                "ViT with distillation_token=True has two"
            )
        # The head that large vocabularies are computed from is that of all.
        return student._replace(logits=student.head_logits[self.head], head=None)
