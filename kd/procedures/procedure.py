"""Who supplies the batch and who learns: the record, and what it is built from.

A procedure is a field of the experiment. It says which networks learn, builds the pure
compiled step that they learn by, and says which of them is the one to keep. The loop,
checkpoints and results know no particular one.
"""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Shaped

from kd.data.sample import Sample
from kd.objective import Loss, Mix, embeddings_of, is_told
from kd.procedures.term_gradients import TermGradients
from kd.types import (
    Architecture,
    Batch,
    Model,
    Outputs,
    Params,
    Training,
    answers_name,
)
from kd.views.view import Respondent, View

if TYPE_CHECKING:
    from kd.experiment import Experiment


class Setting(NamedTuple):
    """What the step of a procedure is made of."""

    learners: Mapping[str, Model]
    """The networks that learn, by the names that the procedure gave them."""
    teachers: tuple[Model | None, ...]
    """The frozen networks; None for one whose answers come with the batch."""
    objective: Mix
    optimizer: optax.GradientTransformation
    num_steps: int = 0
    """Length of the run."""
    end: tuple[int, ...] = ()
    """Token ids that end a text that is written."""
    combine: Callable[[list[Any]], Any] | None = None
    """The logits of several teachers as those of one; None where there is one."""
    num_microbatches: int = 1
    term_gradients: TermGradients = "summed"
    view: View | None = None
    mesh: Mesh | None = None
    losses: tuple[Loss, ...] = ()
    """That read what the teachers say; those of the objective if there are none."""

    def consult(self, teacher_params: Params, batch: Batch) -> Outputs | None:
        """What the teachers say of a batch, as one; None where nobody asks."""
        losses = self.losses or self.objective.losses
        if not any(loss.needs_teacher for loss in losses):
            return None
        hidden = any(loss.reads_hidden for loss in losses)
        wanted = [e for e in embeddings_of(losses) if e.of == "example"]
        told = is_told(losses, batch)
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

    def ask(
        self, params: Params, teacher_params: Params, whom: Respondent, batch: Batch
    ) -> Float[Array, "b v"]:
        """Logits of the student without dropout, or of the teachers as one."""
        if whom == "student":
            student = self.learners["student"]
            return student.apply(params["student"], batch, None).logits
        answer = self.consult(teacher_params, batch)
        if answer is None:
            raise ValueError("the view asks the teacher, and the objective needs none")
        return answer.logits


class Procedure(abc.ABC):
    """Who supplies the batch, and who learns; a frozen dataclass."""

    exported = "student"
    """The learner that is saved as the run's network, and reported as the student."""
    gives_views = False
    """Whether losses get a second view of the example in the teacher's place."""

    takes_kept = False
    """Whether teachers are consulted by `Setting.consult` alone, so that what is kept
    of their answers (`kd.networks.kept`) may be more, or less, than logits."""

    @property
    def consults_teachers(self) -> bool:
        """Whether losses of student and teacher ask the experiment's teachers.

        If not, the learners teach each other, and are compared with them at most.
        """
        return True

    @property
    def asks_beside_losses(self) -> bool:
        """Whether a step asks the teachers whatever the losses read of them."""
        return False

    def learners(self, student: Architecture) -> dict[str, Architecture]:
        """The networks that learn, by name; all are evaluated.

        Their parameters are `state.params[name]`. The student's own name is that of
        `exported`, and only it takes the weights of `Experiment.start`.
        """
        return {self.exported: student}

    def objectives(self, objective: Mix) -> dict[str, Mix]:
        """What each learner minimises, by its name.

        Args:
            objective: the experiment's, which is that of `exported`.
        """
        return {self.exported: objective}

    def problems(self, experiment: "Experiment") -> Iterator[str]:
        """What speaks against the experiment, a line each."""
        del experiment
        yield from ()

    def annotate(
        self, sample: Sample, answers: Sequence[Float[np.ndarray, "num_train ..."]]
    ) -> Mapping[str, Shaped[np.ndarray, "num_train ..."]]:
        """What every batch holds of its examples besides, by name; nothing by default.

        Asked once, before the first step, by a run that goes on as by one that begins:
        a pure function of what is given, of the whole training split.

        Args:
            sample: what of the split is learnt from, and its labels.
            answers: the cached logits of every teacher; none where they are not cached.
        """
        del sample, answers
        return {}

    @abc.abstractmethod
    def build(self, setting: Setting) -> Training:
        """The two functions of training."""


def shapes_of(model: Model, params: Params, batch: Batch) -> Outputs:
    """What a network gives, as shapes and dtypes only."""
    return jax.eval_shape(model.apply, params, batch, None)
