"""From an experiment to its results: data, teacher, student, evaluation, report."""

import dataclasses
import datetime
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from jax.sharding import Mesh

from kd import config, environment, results, run_directory, teacher
from kd.data import sources
from kd.data.task import Corpus, Prepared
from kd.experiment import Experiment
from kd.fit import check_same, fit
from kd.models import hub, saved
from kd.report.page import write_page
from kd.teacher import TeacherOnData


class Workspace(NamedTuple):
    """Where runs take place."""

    runs: pathlib.Path
    """Folder of all runs; trained teachers go to its folder `teachers`."""
    scale: str
    mesh: Mesh
    say: Callable[[str], Any]
    """Shows a line to the person who waits."""


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
    corpus = sources.load(experiment.data)
    if corpus.notice:
        workspace.say(corpus.notice)
    workspace.say(f"data: {corpus.origin}")
    directory = workspace.runs / name / str(experiment.seed)
    return _run_in(directory, experiment, corpus, name, workspace)


def _run_in(
    directory: pathlib.Path,
    experiment: Experiment,
    corpus: Corpus,
    name: str,
    workspace: Workspace,
    *,
    on_wait: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    description = _describe(experiment, corpus, name, workspace.scale)
    with run_directory.claim(directory, description, on_wait=on_wait):
        finished = directory / "summary.json"
        if finished.exists():
            workspace.say(
                f"{directory}: finished before; remove the folder to run it again"
            )
            if not (directory / "report.html").exists():
                write_page(directory)
            return run_directory.read_json(finished)
        started = time.perf_counter()
        if experiment.student.pretrained:
            # Now, not after hours of training a teacher.
            saved.fetch(experiment.student.pretrained)
            found = saved.read_config(experiment.student.pretrained).network
            check_same(experiment.student, found)
        given = experiment.teacher.directory if experiment.teacher else ""
        data = experiment.data.prepare(
            corpus,
            directory / "model",
            adopt=teacher.model_directory(given) if given else None,
        )
        consulted = _consult_teacher(experiment, data, workspace)
        seconds_teacher = time.perf_counter() - started
        fitted = fit(
            experiment,
            data,
            consulted,
            directory,
            mesh=workspace.mesh,
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
            },
            **results.write(directory, experiment, data, consulted, fitted),
            "speed": {
                "examples_per_second": round(fitted.examples_per_second, 1),
                "steps": fitted.num_steps,
                "seconds_train": round(fitted.seconds, 1),
                "seconds_teacher": round(seconds_teacher, 1),
                "seconds_total": round(time.perf_counter() - started, 1),
            },
            "versions": environment.versions(),
            "device": environment.device(),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(
                timespec="seconds"
            ),
        }
        run_directory.write_json(finished, summary)
        write_page(directory)
        shutil.rmtree(directory / "checkpoints")
        return summary


def _consult_teacher(
    experiment: Experiment, data: Prepared, workspace: Workspace
) -> TeacherOnData | None:
    """What the teacher says about the data; it is trained first if it has to be."""
    wanted = experiment.teacher
    if wanted is None:
        return None
    if wanted.directory:
        directory, source = teacher.model_directory(wanted.directory), wanted.directory
        workspace.say(f"teacher: {directory}")
    else:
        key = teacher.cache_key(wanted.recipe, data.corpus.fingerprint)
        run_of_teacher = workspace.runs / "teachers" / key
        directory, source = run_of_teacher / "model", f"its recipe, key {key}"
        if (run_of_teacher / "summary.json").exists():
            workspace.say(f"teacher: {run_of_teacher}, trained before")
        else:
            workspace.say(f"teacher: training it in {run_of_teacher}")
            _run_in(
                run_of_teacher,
                wanted.recipe,
                data.corpus,
                "teacher",
                workspace,
                on_wait=lambda: workspace.say(
                    "teacher: another process is training it; waiting"
                ),
            )
            workspace.say("teacher: done; now the student")
    objective = experiment.objective
    if objective.reads_hidden and wanted.logits == "cached":
        readers = [t.loss.name for t in objective.terms if t.loss.reads_hidden]
        workspace.say(
            f"teacher: runs in every step, to give {', '.join(readers)} more than "
            "its logits"
        )
        wanted = dataclasses.replace(wanted, logits="live")
    loaded = teacher.load(
        directory,
        task=experiment.data,
        data=data,
        compute_dtype=experiment.compute_dtype,
    )
    return teacher.consult(
        loaded,
        source,
        data,
        on_train=objective.needs_teacher and wanted.logits == "cached",
        mesh=workspace.mesh,
        cache=workspace.runs / "teachers" / "logits",
        say=workspace.say,
    )


def _describe(
    experiment: Experiment, corpus: Corpus, name: str, scale: str
) -> dict[str, Any]:
    """What `config.json` says: the experiment and the content of its data."""
    given = experiment.teacher.directory if experiment.teacher else ""
    return {
        "run": {"name": name, "seed": experiment.seed, "scale": scale},
        "data": {"source": corpus.source, "fingerprint": corpus.fingerprint},
        "teacher": hub.fingerprint(str(teacher.model_directory(given)))
        if given
        else "",
        "experiment": config.to_json(experiment),
    }
