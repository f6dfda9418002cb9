"""From an experiment to its results: data, teacher, student, evaluation, report."""

import datetime
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from jax.sharding import Mesh

from kd import config, environment, results, run_directory, teacher
from kd.data import sources, text
from kd.data.prepared import Prepared, prepare
from kd.data.sources import Corpus
from kd.experiment import Experiment
from kd.fit import fit
from kd.models import hub
from kd.report.page import write_page
from kd.teacher import Lessons


class Host(NamedTuple):
    """Where runs take place."""

    runs: pathlib.Path
    """Folder of all runs; trained teachers go to its folder `teachers`."""
    scale: str
    mesh: Mesh
    say: Callable[[str], Any]
    """Shows a line to the person who waits."""


def run(experiment: Experiment, name: str, host: Host) -> dict[str, Any]:
    """Runs an experiment to its end, or goes on with a run begun before.

    Args:
        experiment: what to run.
        name: of the experiment; the run is in `runs/name/seed`.
        host: where.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        UserError: bad input, a folder of another run, a loss that is not finite.
        kd.train.loop.Interrupted: a signal asked to stop.
    """
    corpus = sources.load(experiment.data)
    if corpus.notice:
        host.say(corpus.notice)
    host.say(f"data: {corpus.origin}")
    directory = host.runs / name / str(experiment.seed)
    return _run_in(directory, experiment, corpus, name, host)


def _run_in(
    directory: pathlib.Path,
    experiment: Experiment,
    corpus: Corpus,
    name: str,
    host: Host,
    *,
    wait: bool = False,
) -> dict[str, Any]:
    description = _describe(experiment, corpus, name, host.scale)
    with run_directory.claim(directory, description, wait=wait):
        finished = directory / "summary.json"
        if finished.exists():
            host.say(f"{directory} holds this run, finished")
            if not (directory / "report.html").exists():
                write_page(directory)
            return run_directory.read_json(finished)
        started = time.perf_counter()
        if experiment.teacher and experiment.teacher.directory:
            _adopt_tokenizer(experiment.teacher.directory, directory / "model")
        data = prepare(
            corpus,
            experiment.tokenizer,
            directory / "model",
            max_length=experiment.widths[-1],
        )
        lessons = _lessons(experiment, data, host) if experiment.teacher else None
        seconds_teacher = time.perf_counter() - started
        fitted = fit(experiment, data, lessons, directory, mesh=host.mesh, say=host.say)
        summary = {
            "name": name,
            "seed": experiment.seed,
            "scale": host.scale,
            "data": {
                "source": corpus.source,
                "origin": corpus.origin,
                "fingerprint": corpus.fingerprint,
                "num_train": len(data.train),
                "num_dev": len(data.dev),
            },
            **results.write(directory, experiment, data, lessons, fitted),
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


def _lessons(experiment: Experiment, data: Prepared, host: Host) -> Lessons:
    """The teacher of an experiment, trained first if it has to be."""
    wanted = experiment.teacher
    assert wanted is not None
    if wanted.directory:
        directory, source = teacher.model_directory(wanted.directory), wanted.directory
        host.say(f"teacher: {directory}")
    else:
        key = teacher.key(wanted.recipe, data.corpus.fingerprint)
        run_of_teacher = host.runs / "teachers" / key
        directory, source = run_of_teacher / "model", f"its recipe, key {key}"
        if (run_of_teacher / "summary.json").exists():
            host.say(f"teacher: {run_of_teacher}, trained before")
        else:
            host.say(f"teacher: training it in {run_of_teacher}")
            _run_in(
                run_of_teacher, wanted.recipe, data.corpus, "teacher", host, wait=True
            )
    loaded = teacher.load(
        directory,
        tokenizer=data.tokenizer,
        num_classes=experiment.data.num_classes,
        compute_dtype=experiment.compute_dtype,
    )
    return teacher.prepare_lessons(
        loaded,
        source,
        data,
        on_train=experiment.objective.needs_teacher and wanted.logits == "cached",
        widths=experiment.widths,
        mesh=host.mesh,
        cache=host.runs / "teachers" / "logits",
        say=host.say,
    )


def _adopt_tokenizer(teacher_directory: str, model_directory: pathlib.Path) -> None:
    source = teacher.model_directory(teacher_directory)
    if hub.find_file(source, "tokenizer.json") or hub.find_file(source, "vocab.txt"):
        model_directory.mkdir(parents=True, exist_ok=True)
        text.save(text.load(source, lowercase=True), model_directory)


def _describe(
    experiment: Experiment, corpus: Corpus, name: str, scale: str
) -> dict[str, Any]:
    """What `config.json` says: the experiment and the content of its data.

    Not where the data lie: a run goes on after they were moved.
    """
    tree = config.to_json(experiment)
    for node in (tree, (tree["teacher"] or {}).get("recipe")):
        if node:
            del node["data"]["directory"], node["data"]["source"]
    return {
        "run": {"name": name, "seed": experiment.seed, "scale": scale},
        "data": {"source": corpus.source, "fingerprint": corpus.fingerprint},
        "experiment": tree,
    }
