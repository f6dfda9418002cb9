"""What an experiment is: which student, which teacher, which loss, on which data.

The records hold the real objects, not their names. `dataclasses.replace` derives one
experiment from another, so that a module shows only what differs.
"""

import dataclasses
import os
import pathlib
from typing import Literal

from kd.data.glue import TextTask
from kd.data.task import Task
from kd.objective import Mix
from kd.procedures.offline import TermGradients
from kd.train.optimizer import AdamW
from kd.types import Architecture, ComputeDtype

Scale = Literal["paper", "mini"]
"""`paper`: the published models and recipe. `mini`: minutes on two CPU cores."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training run, complete.

    Attributes:
        data: the task: what examples are, and where they come from. Shared by student
            and teacher.
        student: the network that learns.
        teacher: the network it learns from; None to train on labels alone.
        objective: what is minimised.
        optimizer: how.
        batch_size: examples in a batch, over all devices.
        num_epochs: length of the run in passes over the data; or
        num_steps: in batches, the data being repeated. One of the two is 0.
        num_microbatches: parts that a batch is processed in, to save memory.
        term_gradients: "summed", "watched" to log the norm of every term's gradient
            and the cosine of every pair, "balanced" to rescale the terms as well so
            that these norms are as the weights; see `kd.procedures.offline`.
        compute_dtype: of activations; parameters and losses stay float32.
        evaluate_every: steps between evaluations on dev; 0 for once an epoch.
        save_every: steps between checkpoints.
        log_every: steps between rows of the metrics.
        seed: of initial parameters, dropout and the order of the data.
    """

    data: Task
    student: Architecture
    teacher: "Teacher | None" = None
    objective: Mix
    optimizer: AdamW
    batch_size: int = 32
    num_epochs: int = 0
    num_steps: int = 0
    num_microbatches: int = 1
    term_gradients: TermGradients = "summed"
    compute_dtype: ComputeDtype = "float32"
    evaluate_every: int = 0
    save_every: int = 500
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_microbatches", "save_every", "log_every"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("num_epochs", "num_steps", "evaluate_every", "seed"):
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if (self.num_epochs > 0) == (self.num_steps > 0):
            raise ValueError(
                "the length of the run is num_epochs or num_steps and the other is 0, "
                f"got {self.num_epochs} and {self.num_steps}"
            )
        self._check_networks()
        if self.teacher is None and self.objective.needs_teacher:
            raise ValueError("the objective needs a teacher and there is none")

    def _check_networks(self) -> None:
        self.data.check(self.student, "student")
        given = self.teacher.directory if self.teacher is not None else ""
        if self.teacher is not None and not given:
            self.data.check(self.teacher.recipe.student, "teacher.recipe.student")
        if (
            isinstance(self.data, TextTask)
            and self.student.pretrained
            and not (self.data.tokenizer.vocabulary or given)
        ):
            raise ValueError(
                "student.pretrained needs the vocabulary that it was trained with, in "
                "data.tokenizer.vocabulary"
            )

    def sharing_data(self) -> "Experiment":
        """The same, the teacher's recipe having our data.

        A student can only be compared with a teacher that sees the same inputs, so
        the student's fields decide for both. A teacher that is given as a directory
        is not trained, so that its recipe does not matter.
        """
        if self.teacher is None or self.teacher.directory:
            return self
        recipe = dataclasses.replace(self.teacher.recipe, data=self.data)
        teacher = dataclasses.replace(self.teacher, recipe=recipe)
        return dataclasses.replace(self, teacher=teacher)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher:
    """Where the teacher comes from and how it is consulted.

    Attributes:
        recipe: the experiment that trains it, once; later runs find it by a key of
            everything that determines it. Its data are those of the student. Its seed
            is its own: all seeds of a student share one teacher.
        directory: a trained one instead, as `model.safetensors` and `config.json`.
        logits: "cached" to compute its logits on the training set once and read them
            from then on, "live" to run it beside the student in every step, as any
            objective that reads hidden states makes it.
    """

    recipe: Experiment
    directory: str = ""
    logits: Literal["cached", "live"] = "cached"

    def __post_init__(self) -> None:
        if self.logits not in ("cached", "live"):
            raise ValueError(f'logits is "cached" or "live", got {self.logits!r}')

    def from_text(self, text: str) -> "Teacher":
        """What `teacher=text` means: "live", "cached" or a directory."""
        if text in ("live", "cached"):
            return dataclasses.replace(self, logits=text)
        directory = pathlib.Path(os.path.expanduser(text))
        if directory.is_dir():
            return dataclasses.replace(self, directory=str(directory))
        raise ValueError(f'expected "live", "cached" or a directory, got {text!r}')
