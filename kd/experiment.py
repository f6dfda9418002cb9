"""What an experiment is: who learns, from whom, by which loss, on which data.

The records hold the real objects, not their names. `dataclasses.replace` derives one
experiment from another, so that a module shows only what differs.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

from kd.data.task import Task
from kd.networks.change import Change
from kd.networks.kept import Dense, Keep
from kd.networks.place import place
from kd.objective import Loss, Mix, embeddings_of, live_readers
from kd.procedures.offline import Offline
from kd.procedures.procedure import Procedure
from kd.procedures.term_gradients import TermGradients
from kd.train.optimizer import AdamW
from kd.types import Architecture, ComputeDtype, Embedding
from kd.views.view import View

Scale = Literal["paper", "small", "mini"]
"""`paper`: the published models and recipe. `small`: small published networks, within
an hour on two CPU cores; as `mini` where there are none. `mini`: from scratch, in
minutes there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training run, complete.

    Attributes:
        data: the task: what examples are, where they come from, and how answers are
            judged. Shared by student and teachers, but for the sample that is learnt
            from.
        student: the network that learns; None for that of `start`, with its sizes.
        teachers: the networks it learns from; none to train on labels alone. One of
            another task can teach losses that read hidden states alone.
        answers: "cached" to compute the teachers' logits on the training set, and such
            vectors of their hidden states as the objective reads, once and read them
            from then on; "live" to run the teachers in every step, as any objective
            that reads more than one vector an example of a hidden state makes them.
        keep: what is kept of cached logits: `Dense()` for all of them, `TopK(k=64)` for
            the largest and the sum of the others, `HiddenAndHead()` for what they are
            made of; see `kd.networks.kept`. On the command line dense, 64 or hidden.
        teacher_weights: of the logits of several teachers, whose weighted sum is then
            their answer; empty for the mean of their probabilities.
        start: the trained network whose weights the student begins with; None for
            fresh ones. What it has no weights for, such as a new head, is fresh.
        procedure: who supplies the batch, and who learns.
        view: how a batch is changed on the device before the networks see it.
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
        keep_best: whether the network of the best evaluation on dev, by the task's main
            metric, is kept in the folder `best` of the run, beside that of the last
            step. The results are those of the last step in any case.
        seed: of initial parameters, dropout and the order of the data.
    """

    data: Task
    student: Architecture | None
    teachers: "tuple[Network, ...]" = ()
    answers: Literal["cached", "live"] = "cached"
    keep: Keep = Dense()
    teacher_weights: tuple[float, ...] = ()
    start: "Network | None" = None
    procedure: Procedure = Offline()
    view: View | None = None
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
    keep_best: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        problems = [*self._problems()]
        if problems:
            raise ValueError("; ".join(problems))

    def _problems(self):
        for name in ("batch_size", "num_microbatches", "save_every", "log_every"):
            value = getattr(self, name)
            if value < 1:
                yield f"{name} must be at least 1, got {value}"
        for name in ("num_epochs", "num_steps", "evaluate_every", "seed"):
            value = getattr(self, name)
            if value < 0:
                yield f"{name} must not be negative, got {value}"
        if self.seed >= 2**32:
            yield f"seed must be below 2^32, got {self.seed}"
        if (self.num_epochs > 0) == (self.num_steps > 0):
            yield (
                "the length of the run is num_epochs or num_steps and the other is 0, "
                f"got {self.num_epochs} and {self.num_steps}"
            )
        if self.asks_teachers and not self.teachers:
            yield "the objective needs a teacher and there is none"
        weights = self.teacher_weights
        if weights and len(weights) != len(self.teachers):
            yield (
                f"teacher_weights are {len(weights)} for {len(self.teachers)} teachers"
            )
        if weights and not (min(weights) >= 0 and math.isclose(sum(weights), 1)):
            yield f"teacher_weights must be shares with the sum 1, got {weights}"
        if self.student is None and self.start is None:
            yield "there is no student: set student, or start"
        # A recipe's own data are replaced by ours, see `sharing_data`.
        networks = [("student", self.student)]
        networks += [
            (f"{_path(self.teachers, i)}.recipe.student", network.recipe.student)
            for i, network in enumerate(self.teachers)
            if network.recipe is not None and not network.place
        ]
        for name, network in networks:
            if network is not None:
                try:
                    self.data.check(network, name)
                except ValueError as error:
                    yield str(error)
        readers = [t.loss.name for t in self.objective.terms if t.loss.reads_logits]
        for i, network in enumerate(self.teachers):
            if network.recipe is None or network.place or not readers:
                continue
            theirs = network.recipe.data.labels
            if theirs != self.data.labels:
                yield (
                    f"{_path(self.teachers, i)} has other outputs ({_few(theirs)}) "
                    f"than the task ({_few(self.data.labels)}), and "
                    f"{', '.join(readers)} compares logits; losses of hidden states "
                    "can learn from it"
                )
        if not self.data.target.has_classes:
            for loss in self.losses:
                if loss.reads_classes:
                    yield (
                        f"{self.data.name} asks for a number, and {loss.name} "
                        "compares predicted classes, of which a number has none; "
                        "SquaredError learns from the targets, LogitMSE from a teacher"
                    )
        yield from self._of_tokens()
        for term in self.objective.terms:
            if term.loss.compares_views and not self.procedure.gives_views:
                yield (
                    f"{term.loss.name} compares two views of every example, and "
                    f"{type(self.procedure).__name__} gives one; Contrastive gives two"
                )
        rows = -(-self.batch_size // max(self.num_microbatches, 1))
        for loss in self.losses:
            if problem := loss.problem(rows):
                yield problem
        yield from self._unanswered()
        yield from self._kept()
        yield from self.procedure.problems(self)
        if self.view is not None:
            yield from self.view.problems(self)
            if self.view.mixes and any(e.of == "class" for e in self.embeddings):
                yield (
                    "the view mixes two examples, and a mean of one class comes with "
                    "each; class_means must be batch"
                )

    def _of_tokens(self):
        """What speaks against losses of single predictions, or of sequences."""
        for loss in self.losses:
            reads = loss.reads_logits or loss.reads_labels
            if not reads or loss.of_tokens == self.data.target.of_tokens:
                continue
            kind = type(loss).__name__
            yield (
                f"{loss.name} compares sequences of predictions, and {self.data.name} "
                "asks for one an example"
                if loss.of_tokens
                else f"{loss.name} compares one prediction an example, and "
                f"{self.data.name} asks for one at every token; PerToken({kind}()) "
                "takes each of these for one"
            )

    def _unanswered(self):
        """What speaks against asking the teachers about a part of the examples."""
        if not self.data.unanswered or not self.asks_teachers:
            return
        readers = ", ".join(loss.name for loss in self.losses if loss.reads_hidden)
        for wrong, what in (
            (self.answers == "live", "answers=live asks about all; set answers=cached"),
            (readers, f"{readers} has the teacher run in every step, on all"),
            (self.view, "a view would mix, or change, what answers are known of"),
        ):
            if wrong:
                yield (
                    f"data.unanswered={self.data.unanswered} reads a teacher's cached "
                    f"answers about the others; {what}"
                )

    def _kept(self):
        """What speaks against what is to be kept of the teachers' answers."""
        if isinstance(self.keep, Dense) or not self.asks_teachers:
            return
        readers = ", ".join(loss.name for loss in self.losses if loss.reads_hidden)
        for wrong, what in (
            (self.answers == "live", "answers=live keeps none; set answers=cached"),
            (readers, f"{readers} reads hidden states of the teacher"),
            (self.view, "a view would mix, or change, what answers are known of"),
            (
                not self.procedure.takes_kept,
                f"{type(self.procedure).__name__} reads all of the logits itself",
            ),
        ):
            if wrong:
                yield (
                    f"keep={type(self.keep).__name__} is of cached answers that losses "
                    f"of logits alone read; {what}; or set keep=dense"
                )
        yield from self.keep.problems(self.losses, len(self.teachers))

    @property
    def _mixes(self) -> list[Mix]:
        """What each of the networks that learn minimises."""
        return [*self.procedure.objectives(self.objective).values()]

    @property
    def losses(self) -> list[Loss]:
        """Every loss that some network minimises."""
        return [loss for mix in self._mixes for loss in mix.losses]

    @property
    def embeddings(self) -> list[Embedding]:
        """Vectors of the teacher that come with the batch, or could."""
        return [*embeddings_of(self.losses)]

    @property
    def reads_hidden(self) -> bool:
        """Whether some loss reads more of a teacher than logits."""
        return any(loss.reads_hidden for loss in self.losses)

    @property
    def live_readers(self) -> list[str]:
        """Losses for which teachers run in every step: embeddings are not enough."""
        return live_readers(self.losses)

    def problems_within(self, num_steps: int) -> list[str]:
        """What speaks against schedules in a run of so many steps."""
        return [line for mix in self._mixes for line in mix.problems_within(num_steps)]

    @property
    def asks_teachers(self) -> bool:
        """Whether training needs the teachers' answers."""
        asking = any(loss.needs_teacher for loss in self.losses)
        asking |= self.procedure.asks_beside_losses
        return asking and self.procedure.consults_teachers

    @property
    def teacher(self) -> "Network | None":
        """The only teacher; None without, or with several."""
        return self.teachers[0] if len(self.teachers) == 1 else None

    def combine(self, outputs: Sequence[Any]) -> Any:
        """The outputs of several teachers, [n, v] each, as those of one."""
        if not self.teacher_weights:
            return self.data.target.ensemble(outputs)
        pairs = zip(self.teacher_weights, outputs, strict=True)
        return sum(weight * output for weight, output in pairs)

    @property
    def made_from(self) -> "dict[str, Network]":
        """Teachers and start by their roles: "teacher" or "teacher 1", ..., "start"."""
        several = len(self.teachers) > 1
        roles = {
            f"teacher {i}" if several else "teacher": network
            for i, network in enumerate(self.teachers, start=1)
        }
        return roles | ({"start": self.start} if self.start else {})

    def sharing_data(self) -> "Experiment":
        """The same, with our data in the recipes of all networks it is made from.

        A student can only be compared with a teacher that sees the same inputs, so
        the student's fields decide for all. How much of the training set is learnt
        from (`kd.data.sample`) is every recipe's own, so that students of all samples
        share a teacher. A network of another task, one that asks something else of
        the same examples included, keeps its own, read from the same place.
        """
        return dataclasses.replace(
            self,
            teachers=tuple(network.on(self.data) for network in self.teachers),
            start=self.start and self.start.on(self.data),
        )


def _few(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:3])
    return shown if len(labels) <= 3 else f"{shown}, ..., {len(labels)} in all"


def _path(teachers: "tuple[Network, ...]", i: int) -> str:
    return "teacher" if len(teachers) == 1 else f"teachers.{i}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A trained network: what an experiment yields, or what lies in a place.

    Attributes:
        recipe: the experiment that trains it, once; later runs find it by a key of
            everything that determines it. Its seed is its own: all seeds of a student
            share one teacher.
        place: a trained one instead: a directory with `model.safetensors` and
            `config.json`, such as a run's or one of `transformers`, or a hub name. It
            brings its sizes, labels and tokenizer.
        change: what is done to it, a pure function of its sizes and parameters.
        checkpoint: "last" for the network after the recipe's last step, "best" for that
            of its best evaluation on dev, which the recipe then keeps (`keep_best`).
            Chosen on dev, so what is trained further from it is, too.
    """

    recipe: Experiment | None = None
    place: str = ""
    change: Change | None = None
    checkpoint: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        if self.recipe is None and not self.place:
            raise ValueError("a network needs a recipe or a place")
        if self.checkpoint == "best":
            if self.recipe is None or self.place:
                raise ValueError(
                    'checkpoint="best" is of a recipe; of a run that kept it, the best '
                    "network is in the folder best, which can be the place"
                )
            kept = dataclasses.replace(self.recipe, keep_best=True)
            object.__setattr__(self, "recipe", kept)

    def on(self, data: Task) -> "Network":
        """The same, its recipe having these data where it is of the same task."""
        if self.recipe is None or self.place:
            return self
        own = shared_data(data, self.recipe.data) or dataclasses.replace(
            self.recipe.data, source=data.source, directory=data.directory
        )
        recipe = dataclasses.replace(self.recipe, data=own).sharing_data()
        return dataclasses.replace(self, recipe=recipe)


def shared_data(ours: Task, theirs: Task) -> Task | None:
    """Our settings of their task, with their sample; None where it is another task."""
    if type(ours) is not type(theirs) or ours.name != theirs.name:
        return None
    if ours.labels != theirs.labels:
        return None
    return ours.with_sample_of(theirs)


def network_in(text: str, change: Change | None = None) -> Network:
    """The network in a directory, or on the hub.

    Raises:
        ValueError: the text is neither.
    """
    if text in ("live", "cached"):
        raise ValueError(f"set answers={text} instead")
    return Network(place=place(text), change=change)
