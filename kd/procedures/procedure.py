"""Who supplies the batch and who learns: the record, and what it is built from.

A procedure is a field of the experiment. It says which networks learn, builds the pure
compiled step that they learn by, and says which of them is the one to keep. The loop,
checkpoints and results know no particular one.
"""

import abc
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import optax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from kd.objective import Mix
from kd.procedures.term_gradients import TermGradients
from kd.types import Architecture, Batch, Model, Outputs, Params, Training

if TYPE_CHECKING:
    from kd.experiment import Experiment


@runtime_checkable
class View(Protocol):
    """How a batch is changed on the device before the networks see it.

    A frozen dataclass that is a pure function of key and batch, of static shapes, in
    the compiled step: student and teacher see the same. It is applied to the whole
    batch, before that is cut into parts.

    The cached answers of a teacher are to the batch as it was: where `changes_answers`
    is False the teachers run in every step instead; where it is True the view changes
    "teacher_logits" in the batch along with the inputs.
    """

    @property
    def changes_answers(self) -> bool: ...

    def __call__(self, key: PRNGKeyArray, batch: Batch) -> Batch: ...


class Setting(NamedTuple):
    """What the step of a procedure is made of."""

    learners: Mapping[str, Model]
    """The networks that learn, by the names that the procedure gave them."""
    teachers: tuple[Model | None, ...]
    """The frozen networks; None for one whose answers come with the batch."""
    objective: Mix
    optimizer: optax.GradientTransformation
    combine: Callable[[list[Any]], Any] | None = None
    """The logits of several teachers as those of one; None where there is one."""
    num_microbatches: int = 1
    term_gradients: TermGradients = "summed"
    view: View | None = None
    mesh: Mesh | None = None

    def consult(self, teacher_params: Params, batch: Batch) -> Outputs | None:
        """What the teachers say of a batch, as one; None where nobody asks."""
        if not self.objective.needs_teacher:
            return None
        hidden = self.objective.reads_hidden
        wanted = [e for e in self.objective.embeddings if e.of == "example"]
        told = not self.objective.live_readers and all(e.name in batch for e in wanted)
        answers = []
        for i, teacher in enumerate(self.teachers):
            cached = batch.get(answers_name(i))
            if cached is not None and told:
                vectors: Any = {e.layer: batch[e.name] for e in wanted}
                answers.append(Outputs(logits=cached, hidden=vectors))
            elif teacher is not None:
                answers.append(teacher.apply(teacher_params[i], batch, None))
            else:
                what = "hidden states" if hidden else "logits"
                raise ValueError(
                    "the objective needs a teacher and there is none to give its "
                    f"{what}"
                )
        if not answers:
            raise ValueError("the objective needs a teacher and there is none")
        if len(answers) == 1:
            return answers[0]
        assert self.combine is not None
        return Outputs(logits=self.combine([answer.logits for answer in answers]))


def answers_name(i: int) -> str:
    """What a batch calls the cached logits of teacher i."""
    return f"teacher_logits_{i}" if i else "teacher_logits"


class Procedure(abc.ABC):
    """Who supplies the batch, and who learns; a frozen dataclass."""

    exported = "student"
    """The learner that is saved as the run's network, and reported as the student."""

    def learners(self, student: Architecture) -> dict[str, Architecture]:
        """The networks that learn, by name; all are evaluated.

        Their parameters are `state.params[name]`. The student's own name is that of
        `exported`, and only it takes the weights of `Experiment.start`.
        """
        return {self.exported: student}

    def problems(self, experiment: "Experiment") -> Iterator[str]:
        """What speaks against the experiment, a line each."""
        del experiment
        yield from ()

    @abc.abstractmethod
    def build(self, setting: Setting) -> Training:
        """The two functions of training."""


def shapes_of(model: Model, params: Params, batch: Batch) -> Outputs:
    """What a network gives, as shapes and dtypes only."""
    return jax.eval_shape(model.apply, params, batch, None)
