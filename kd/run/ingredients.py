"""What the runs of an experiment are made from, whatever their seeds."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from kd import hosts
from kd.data.sample import Sample, Sampled
from kd.data.task import Corpus, Prepared
from kd.experiment import Experiment
from kd.networks import answers, load
from kd.networks.answers import Answers
from kd.networks.load import Found, Start
from kd.run.workspace import Workspace
from kd.types import Embedding


class Ingredients(NamedTuple):
    """Data, and the networks that a run begins with and learns from."""

    data: Prepared
    drawn: Sample
    """What was drawn of the training set."""
    sample: Sample
    """What of it takes part."""
    start: Start | None
    """What the student begins with; None for fresh weights."""
    answers: Answers | None
    """The teachers, and what they say about the data; None without."""
    seconds: float
    """That it took."""


def gather(
    experiment: Experiment,
    corpus: Corpus,
    models: Sequence[pathlib.Path],
    found: dict[str, Found],
    workspace: Workspace,
    begun: float,
) -> Ingredients:
    """Gathers them.

    Args:
        experiment: of the runs.
        corpus: its records.
        models: the folders of the networks that the runs yield. What turns records
            into inputs is put into each.
        found: where the networks are that they are made from, by their roles.
        workspace: where.
        begun: when the clock began.
    """
    found = dict(found)
    start = found.pop("start", None)
    teachers = [*found.values()]
    data = _prepare(experiment, corpus, models, teachers, start, workspace)
    for notice in data.notices:
        workspace.say(notice)
    drawn = experiment.data.sample(data.train.labels, experiment.data.target)
    sample = taking_part(drawn, experiment, workspace.say)
    return Ingredients(
        data,
        drawn,
        sample,
        _begin_with(load.load_start(start, experiment.data, data)) if start else None,
        _ask(experiment, data, sample, teachers, workspace),
        time.perf_counter() - begun,
    )


def _begin_with(start: Start) -> Start:
    """The start, once all processes have found the same weights."""
    if hosts.several():
        hosts.agree(
            "the weights of the start",
            load.fingerprint_of(str(start.network), start.params),
            "all hosts must find the same files there",
        )
    return start


def _prepare(
    experiment: Experiment,
    corpus: Corpus,
    models: Sequence[pathlib.Path],
    teachers: list[Found],
    start: Found | None,
    workspace: Workspace,
) -> Prepared:
    """Inputs as the networks that the run is made from read them."""
    experiment.data.check_installed()  # Now, rather than after an epoch.
    made_from = [*teachers, *([start] if start else [])]
    adopt = made_from[0].place if made_from else ""
    data = inputs(experiment, corpus, models, adopt, workspace)
    for found in made_from:
        load.check_preprocessing(found, experiment.data, data, adopt)
    return data


def inputs(
    experiment: Experiment,
    corpus: Corpus,
    models: Sequence[pathlib.Path],
    adopt: str,
    workspace: Workspace,
) -> Prepared:
    """Inputs of networks, made once for all runs of a process.

    Args:
        experiment: of the runs.
        corpus: its records.
        models: the folders of the networks that the runs yield, see `gather`.
        adopt: where what makes the inputs is taken from; made of the corpus if empty.
        workspace: where.
    """
    task = experiment.data.with_sample_of(Sampled())  # Of which inputs know nothing.
    for model in models:
        hosts.of_first(
            lambda model=model: task.put_preprocessing(corpus, model, adopt=adopt)
        )
    first = models[0]
    return workspace.shared.once(
        "inputs",
        (task, corpus.fingerprint, task.preprocessing(first)),
        lambda: task.encode(corpus, first),
    )


def taking_part(
    drawn: Sample, experiment: Experiment, say: Callable[[str], Any]
) -> Sample:
    """What can teach, and says what of the training set that is."""
    if not experiment.asks_teachers:
        drawn = dataclasses.replace(drawn, answered=np.ones_like(drawn.answered))
    if drawn.is_whole:
        return drawn
    answers = len(drawn.asked)
    say(
        f"training on {len(drawn.kept):,} of {len(drawn.labels):,} examples, "
        f"{drawn.num_labelled:,} of them labelled, {drawn.num_changed:,} of these as "
        "another class"
        + (f"; teachers answer on {answers:,}" if answers < len(drawn.kept) else "")
    )
    whole = np.ones_like(drawn.answered)
    useful = np.zeros_like(whole)
    for loss in experiment.losses:
        useful |= (drawn.labelled if loss.reads_labels else whole) & (
            drawn.answered if loss.needs_teacher else whole
        )
    idle = int((~useful[drawn.kept]).sum())
    if not idle:
        return drawn
    if all(loss.reads_labels for loss in experiment.losses):
        lack, why = "a label", "reads labels"
    elif all(loss.needs_teacher for loss in experiment.losses):
        lack, why = "a teacher's answer", "needs one"
    else:
        lack, why = "a label and an answer", "needs one of them"
    say(
        f"{idle:,} examples without {lack} take no part: every term of the objective "
        f"{why}"
    )
    return drawn.only(useful)


class Asking(NamedTuple):
    """What a run asks its teachers."""

    about: Int[np.ndarray, "q"] | None
    """Training examples that their logits are cached of; None for not at all."""
    in_step: bool
    """Whether they run in every step."""
    embeddings: list[Embedding]
    """Vectors of hidden states that are cached."""


def asking(experiment: Experiment, sample: Sample, say: Callable[[str], Any]) -> Asking:
    """What an experiment asks its teachers, and says why they run in every step."""
    view = experiment.view
    asks, live = experiment.asks_teachers, experiment.answers == "live"
    readers = experiment.live_readers
    if asks and readers and not live:
        live = True
        say(
            f"teacher: runs in every step, to give {', '.join(readers)} more than "
            "its logits"
        )
    # A view changes cached logits at most.
    changed = view is not None and view.changes_answers and not experiment.reads_hidden
    on_view = view is not None and not changed
    if view is not None and asks and on_view and not live:
        live = not view.keeps_answers
        say("teacher: runs in every step, to see the view of the batch")
    # Those of classes are needed in any case.
    embeddings = [
        e for e in experiment.embeddings if asks and (not live or e.of == "class")
    ]
    about = sample.asked if asks and not live else None
    return Asking(about, asks and (live or on_view), embeddings)


def _ask(
    experiment: Experiment,
    data: Prepared,
    sample: Sample,
    teachers: list[Found],
    workspace: Workspace,
) -> Answers | None:
    """What the teachers say about the data."""
    if not teachers:
        return None
    about, in_step, embeddings = asking(experiment, sample, workspace.say)

    keep = experiment.keep.for_losses(experiment.losses)

    def consult() -> Answers:
        loaded = [
            load.load(
                found,
                experiment.data,
                data,
                experiment.compute_dtype,
                any_outputs=not any(loss.reads_logits for loss in experiment.losses),
            )
            for found in teachers
        ]
        for teacher in loaded:
            if teacher.other_outputs:
                workspace.say(
                    f"teacher: {teacher.other_outputs}; its hidden states alone teach, "
                    "and the student is not compared with it"
                )
        return answers.consult(
            loaded,
            experiment.combine,
            data,
            target=experiment.data.target,
            about=about,
            in_step=in_step,
            embeddings=embeddings,
            keep=keep,
            mesh=workspace.mesh,
            cache=workspace.networks / "answers",
            say=workspace.say,
        )

    key = (
        repr(teachers), experiment.data.with_sample_of(Sampled()),
        data.corpus.fingerprint, data.preprocessing, experiment.compute_dtype,
        None if about is None else about.tobytes(), in_step, experiment.teacher_weights,
        tuple(embeddings), keep, any(loss.reads_logits for loss in experiment.losses),
    )  # fmt: skip
    return workspace.shared.once("answers", key, consult)
