"""What a view of a batch is."""

import abc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from kd.types import Batch, answers_name

if TYPE_CHECKING:
    from kd.experiment import Experiment

Respondent = Literal["student", "teacher"]

Ask = Callable[[Respondent, Batch], Float[Array, "b v"]]
"""The logits that the student, as it is now, or the teachers, as one, give a batch."""


class View(abc.ABC):
    """How a batch is changed on the device before the networks see it.

    A frozen dataclass that is a pure function of key and batch, and of what the
    networks say of one, of static shapes, in the compiled step: student and teacher see
    the same. It is applied to the whole batch, before that is cut into parts.

    Masked rows stay masked and stay where they are, the other rows have nothing of
    them, and are what they would be without them.

    The cached answers of a teacher are to the batch as it was: where `changes_answers`
    is False the view leaves them out, and the teachers run in every step instead; where
    it is True it changes "teacher_logits" in the batch along with the inputs. With
    `keeps_answers` they are read for the batch that the view stands beside.
    """

    @property
    def changes_answers(self) -> bool:
        return False

    @property
    def keeps_answers(self) -> bool:
        """Whether the batch is still there, with the cached answers to it."""
        return False

    @property
    def mixes(self) -> bool:
        """Whether examples get a second label, see `kd.objective.Mix`."""
        return False

    @property
    def beside(self) -> float | None:
        """The weight of what is learnt from the view; None where it replaces the batch.

        The view otherwise stands in the batch that is returned, as "view".
        """
        return None

    @property
    def inner(self) -> tuple["View", ...]:
        """The views that it is made of."""
        return ()

    def problems(self, experiment: "Experiment") -> Iterator[str]:
        """What speaks against the experiment, a line each."""
        for view in self.inner:
            yield from view.problems(experiment)

    @abc.abstractmethod
    def __call__(
        self, key: PRNGKeyArray, batch: Batch, ask: Ask | None = None
    ) -> dict[str, Any]:
        """The batch as it is seen.

        Args:
            key: of everything that is drawn.
            batch: the batch, with "mask" [b].
            ask: what the networks say, for views that choose by it.
        """


def with_inputs(batch: Batch, **inputs: Array) -> dict[str, Any]:
    """The batch with other inputs, and without what teachers have said of the old."""
    return {name: x for name, x in batch.items() if not is_answer(name)} | inputs


def rebalanced(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with weights of labels whose mean over its examples is 1, or all 0.

    As it is where none is hidden, and as `kd.data.sample` makes them.
    """
    names = [n for n in ("label_weight", "mixed_label_weight") if n in batch]
    mask = batch["mask"]
    total = sum(jnp.sum(batch[name], where=mask) for name in names)
    factor = jnp.sum(mask) / jnp.where(total > 0, total, 1)
    return batch | {name: factor * batch[name] for name in names}


def is_answer(name: str) -> bool:
    """Whether a batch has a teacher's logits under this name."""
    return name.startswith(answers_name(0))
