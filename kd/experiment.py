"""What an experiment is: which student, which teacher, which loss, on which data.

The records hold the real objects, not their names. `dataclasses.replace` derives one
experiment from another, so that a module shows only what differs.
"""

import dataclasses
import pathlib
from typing import Literal

from kd.data.glue import TextTask
from kd.data.text import WordPiece
from kd.models.bert import Bert, ComputeDtype
from kd.objective import Mix
from kd.procedures.offline import TermGradients
from kd.train.optimizer import AdamW

Scale = Literal["paper", "mini"]
"""`paper`: the published models and recipe. `mini`: minutes on two CPU cores."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training run, complete.

    Attributes:
        data: the task and where its records come from.
        tokenizer: shared by student and teacher. A teacher given as a directory
            brings its own.
        student: the network that learns.
        teacher: the network it learns from; None to train on labels alone.
        objective: what is minimised.
        optimizer: how.
        batch_size: examples in a batch, over all devices.
        num_epochs: length of the run in passes over the data; or
        num_steps: in batches, the data being repeated. One of the two is 0.
        widths: numbers of tokens that batches are padded to. Longer examples are cut
            to the last.
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

    data: TextTask
    tokenizer: WordPiece = WordPiece()
    student: Bert
    teacher: "Teacher | None" = None
    objective: Mix
    optimizer: AdamW
    batch_size: int = 32
    num_epochs: int = 0
    num_steps: int = 0
    widths: tuple[int, ...] = (8, 16, 32, 64)
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
        self._check_widths()
        if self.teacher is None and self.objective.needs_teacher:
            raise ValueError("the objective needs a teacher and there is none")
        own_vocabulary = self.tokenizer.vocabulary or (
            self.teacher and self.teacher.directory
        )
        if self.student.pretrained and not own_vocabulary:
            raise ValueError(
                "student.pretrained needs the vocabulary that it was trained with, in "
                "tokenizer.vocabulary"
            )

    def _check_widths(self) -> None:
        if not self.widths:
            raise ValueError("widths needs at least one number of tokens")
        if list(self.widths) != sorted(set(self.widths)):
            raise ValueError(f"widths must be increasing, got {self.widths}")
        if self.widths[0] < 3:
            raise ValueError(
                f"widths must hold [CLS], a token and [SEP], got {self.widths[0]}"
            )
        limits = {"student.max_length": self.student.max_length}
        if self.teacher is not None and not self.teacher.directory:
            limit = self.teacher.recipe.student.max_length
            limits["teacher.recipe.student.max_length"] = limit
        for name, limit in limits.items():
            if self.widths[-1] > limit:
                raise ValueError(
                    f"the last of widths, {self.widths[-1]}, exceeds {name}, {limit}"
                )

    def sharing_data(self) -> "Experiment":
        """The same, the teacher's recipe having our data and tokenizer.

        A student can only be compared with a teacher that sees the same tokens, so
        the student's fields decide for both.
        """
        if self.teacher is None:
            return self
        recipe = dataclasses.replace(
            self.teacher.recipe, data=self.data, tokenizer=self.tokenizer
        )
        teacher = dataclasses.replace(self.teacher, recipe=recipe)
        return dataclasses.replace(self, teacher=teacher)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher:
    """Where the teacher comes from and how it is consulted.

    Attributes:
        recipe: the experiment that trains it, once; later runs find it by a key of
            everything that determines it. Its data and tokenizer are those of the
            student. Its seed is its own: all seeds of a student share one teacher.
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
        if pathlib.Path(text).is_dir():
            return dataclasses.replace(self, directory=text)
        raise ValueError(f'expected "live", "cached" or a directory, got {text!r}')
