"""From an experiment to its results: data, networks, training, evaluation, report."""

import dataclasses
import datetime
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from kd import config, environment, run_directory
from kd.data import sources
from kd.data.sample import Sample, Sampled
from kd.data.task import Corpus, Prepared, Task
from kd.experiment import Experiment
from kd.networks import answers, load
from kd.networks.answers import Answers
from kd.networks.load import Found
from kd.networks.place import with_fingerprints
from kd.report.page import write_page_or_tell
from kd.run import results
from kd.run.fit import fit
from kd.run.memory import Memory
from kd.run.obtain import check_places, key, obtain


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Where runs take place, and what those of one process share."""

    runs: pathlib.Path
    """Folder of all runs; networks made on the way go to its folder `networks`."""
    scale: str
    mesh: Mesh
    say: Callable[[str], Any]
    """Shows a line to the person who waits."""
    memory: Memory = dataclasses.field(default_factory=Memory)


def run(experiment: Experiment, name: str, workspace: Workspace) -> dict[str, Any]:
    """Runs an experiment to its end, or goes on with a run begun before.

    Args:
        experiment: what to run.
        name: of the experiment; the run is in `runs/name/seed`.
        workspace: where.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        UserError: bad input, a folder of another run, a loss that is not finite.
        kd.train.loop.Interrupted: a signal asked to stop.
    """
    corpus = read(experiment.data, workspace)
    workspace.say(f"data: {corpus.origin}")
    directory = workspace.runs / name / str(experiment.seed)
    return _run_in(directory, experiment, corpus, name, workspace)


def folder_of(experiment: Experiment, workspace: Workspace) -> pathlib.Path:
    """Where `make` runs an experiment: the folder of the network that it yields."""
    fingerprint = read(experiment.data, workspace).fingerprint
    return workspace.runs / "networks" / key(experiment, fingerprint)


def make(
    experiment: Experiment,
    workspace: Workspace,
    *,
    directory: pathlib.Path | None = None,
    on_wait: Callable[[], Any] | None = None,
) -> pathlib.Path:
    """Runs an experiment by what it is, not by a name, unless that has been done.

    Whoever asks for an experiment of the same fields finds the same run: tables, and
    experiments that have it as their teacher or start.

    Args:
        experiment: what to run; its networks share its data (`sharing_data`).
        workspace: where.
        directory: another folder than the network's own, to make it again.
        on_wait: called before waiting for another process at work on it; without it
            that is an error.

    Returns:
        The folder of the finished run.

    Raises:
        UserError: as `run`; `Busy` where another process is at work on it.
        kd.train.loop.Interrupted: a signal asked to stop.
    """
    directory = directory or folder_of(experiment, workspace)
    if not (directory / "summary.json").exists():
        _run_in(
            directory,
            experiment,
            read(experiment.data, workspace),
            "network",
            # A network is what it is, whatever the scale of who asked for it.
            dataclasses.replace(workspace, scale=""),
            on_wait=on_wait,
        )
    return directory


def read(task: Task, workspace: Workspace) -> Corpus:
    """The records of a task, read once."""
    task = task.with_sample_of(Sampled())  # Of which the records know nothing.

    def load_and_tell() -> Corpus:
        corpus = sources.load(task)
        if corpus.notice:
            workspace.say(corpus.notice)
        return corpus

    return workspace.memory.once("records", task, load_and_tell)


def _run_in(
    directory: pathlib.Path,
    experiment: Experiment,
    corpus: Corpus,
    name: str,
    workspace: Workspace,
    *,
    on_wait: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    check_places(experiment, directory)
    description = _describe(experiment, corpus, name, workspace.scale)
    with run_directory.claim(directory, description, on_wait=on_wait):
        finished = directory / "summary.json"
        if finished.exists():
            workspace.say(
                f"{directory}: finished before; remove the folder to run it again"
            )
            if not (directory / "report.html").exists():
                write_page_or_tell(directory, workspace.say)
            # Where a kill came between the summary and the end.
            shutil.rmtree(directory / "checkpoints", ignore_errors=True)
            return run_directory.read_json(finished)
        started = time.perf_counter()
        teachers, start = _obtain(experiment, workspace)
        data = _prepare(experiment, corpus, directory, teachers, start)
        drawn = experiment.data.sample(data.train.labels, experiment.data.target)
        begun = load.load_start(start, experiment.data, data) if start else None
        told = _ask(experiment, data, teachers, workspace)
        seconds_teacher = time.perf_counter() - started
        fitted = fit(
            experiment,
            data,
            _taking_part(drawn, experiment, workspace.say),
            begun,
            told,
            directory,
            mesh=workspace.mesh,
            memory=workspace.memory,
            say=workspace.say,
        )
        summary = {
            "name": name,
            "seed": experiment.seed,
            "scale": workspace.scale,
            "data": {
                "source": corpus.source,
                "origin": corpus.origin,
                "fingerprint": corpus.fingerprint,
                "num_train": len(data.train),
                "num_dev": len(data.dev),
                "sample": drawn.counts(),
            },
            **results.write(directory, experiment, data, told, fitted),
            "speed": {
                "examples_per_second": round(fitted.speed.examples_per_second, 1),
                "steps": fitted.num_steps,
                "seconds_train": round(fitted.speed.seconds, 1),
                "seconds_teacher": round(seconds_teacher, 1),
                # Of this process: a run that was stopped took more.
                "seconds_total": round(time.perf_counter() - started, 1),
                **({"partial": True} if fitted.speed.partial else {}),
            },
            "versions": environment.versions(),
            "device": environment.device(),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(
                timespec="seconds"
            ),
        }
        results.write_card(directory, experiment, summary)
        run_directory.write_json(finished, summary)
        write_page_or_tell(directory, workspace.say)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
        return summary


def _obtain(
    experiment: Experiment, workspace: Workspace
) -> tuple[list[Found], Found | None]:
    """Where the teachers and the start are; they are trained first if need be."""

    def folder(recipe: Experiment) -> pathlib.Path:
        return folder_of(recipe, workspace)

    def train(recipe: Experiment) -> None:
        waiting = f"{folder(recipe)}: another process is training it; waiting"
        make(recipe, workspace, on_wait=lambda: workspace.say(waiting))

    found = {
        role: obtain(network, role, folder, train, workspace.say)
        for role, network in experiment.made_from.items()
    }
    start = found.pop("start", None)
    return [*found.values()], start


def _prepare(
    experiment: Experiment,
    corpus: Corpus,
    directory: pathlib.Path,
    teachers: list[Found],
    start: Found | None,
) -> Prepared:
    """Inputs as the networks that the run is made from read them."""
    made_from = [*teachers, *([start] if start else [])]
    adopt = made_from[0].place if made_from else ""
    data = experiment.data.prepare(corpus, directory / "model", adopt=adopt)
    for found in made_from:
        load.check_preprocessing(found, experiment.data, data, adopt)
    return data


def _taking_part(
    drawn: Sample, experiment: Experiment, say: Callable[[str], Any]
) -> Sample:
    """What can teach, and says what of the training set that is."""
    if drawn.is_whole:
        return drawn
    say(
        f"training on {len(drawn.kept):,} of {len(drawn.labels):,} examples, "
        f"{drawn.num_labelled:,} of them labelled, {drawn.num_changed:,} of these as "
        "another class"
    )
    hidden = len(drawn.kept) - drawn.num_labelled
    if not hidden or not all(t.loss.reads_labels for t in experiment.objective.terms):
        return drawn
    say(
        f"{hidden:,} examples without a label take no part: every term of the "
        "objective reads labels"
    )
    return drawn.with_labels_only()


def _ask(
    experiment: Experiment,
    data: Prepared,
    teachers: list[Found],
    workspace: Workspace,
) -> Answers | None:
    """What the teachers say about the data."""
    if not teachers:
        return None
    objective, view = experiment.objective, experiment.view
    live = experiment.answers == "live"
    if objective.live_readers and not live:
        live = True
        readers = ", ".join(objective.live_readers)
        workspace.say(
            f"teacher: runs in every step, to give {readers} more than its logits"
        )
    # A view changes cached logits at most.
    changed = view is not None and view.changes_answers and not objective.reads_hidden
    if view is not None and not changed and not live:
        live = True
        workspace.say("teacher: runs in every step, to see the view of the batch")
    on_train = objective.needs_teacher and not live
    # Those of classes are needed in any case.
    embeddings = [e for e in objective.embeddings if not live or e.of == "class"]

    def consult() -> Answers:
        loaded = [
            load.load(
                found,
                experiment.data,
                data,
                experiment.compute_dtype,
                any_outputs=not objective.reads_logits,
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
            experiment.data.target.ensemble,
            data,
            on_train=on_train,
            embeddings=embeddings,
            mesh=workspace.mesh,
            cache=workspace.runs / "networks" / "answers",
            say=workspace.say,
        )

    asked = (
        repr(teachers), experiment.data.with_sample_of(Sampled()),
        data.corpus.fingerprint, data.preprocessing, experiment.compute_dtype, on_train,
        tuple(embeddings), objective.reads_logits,
    )  # fmt: skip
    return workspace.memory.once("answers", asked, consult)


def _describe(
    experiment: Experiment, corpus: Corpus, name: str, scale: str
) -> dict[str, Any]:
    """What `config.json` says: the experiment and the content of its data."""
    tree = config.to_json(experiment)
    return {
        "run": {"name": name, "seed": experiment.seed, "scale": scale},
        "data": {"source": corpus.source, "fingerprint": corpus.fingerprint},
        "numerics": environment.numerics(),
        "toolchain": environment.toolchain(),
        # Paths may change; what lies there may not.
        "networks": [
            config.identity(with_fingerprints(tree[role]))
            for role in ("teachers", "start")
        ],
        "experiment": tree,
    }
