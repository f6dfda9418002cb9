"""From an experiment to its results: data, networks, training, evaluation, report."""

import contextlib
import dataclasses
import datetime
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from kd import config, environment, hosts, run_directory
from kd.data.task import Corpus
from kd.errors import Diverged
from kd.experiment import Experiment
from kd.networks.load import Found
from kd.networks.place import with_fingerprints
from kd.report.page import write_page_or_tell
from kd.run import results
from kd.run.fit import Fitted, fit
from kd.run.ingredients import Ingredients, gather
from kd.run.obtain import check_places, obtain
from kd.run.workspace import Workspace, folder_of, read


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
    if not hosts.of_first((directory / "summary.json").exists):
        corpus = read(experiment.data, workspace)
        name, workspace = as_network(workspace)
        _run_in(directory, experiment, corpus, name, workspace, on_wait=on_wait)
    return directory


def as_network(workspace: Workspace) -> tuple[str, Workspace]:
    """Name and workspace of a run that is found by what it is.

    That does not depend on the scale of who asked for it.
    """
    return "network", dataclasses.replace(workspace, scale="")


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
    description = describe(experiment, corpus, name, workspace.scale)
    with contextlib.ExitStack() as claimed:

        def claim() -> None:
            claimed.enter_context(
                run_directory.claim(directory, description, on_wait=on_wait)
            )

        hosts.of_first(claim)
        finished = directory / "summary.json"

        def found() -> dict[str, Any] | None:
            if not finished.exists():
                return None
            workspace.say(
                f"{directory}: finished before; remove the folder to run it again"
            )
            if not (directory / "report.html").exists():
                write_page_or_tell(directory, workspace.say)
            # Where a kill came between the summary and the end.
            shutil.rmtree(directory / "checkpoints", ignore_errors=True)
            return run_directory.read_json(finished)

        if (before := hosts.of_first(found)) is not None:
            return before
        checkpoints = directory / "checkpoints"
        (outcome,) = carry_out(
            [experiment], [directory], corpus, name, workspace, checkpoints
        )
        if isinstance(outcome, Diverged):
            raise outcome
        if hosts.is_first():
            shutil.rmtree(checkpoints, ignore_errors=True)
        assert outcome is not None
        return outcome


def carry_out(
    experiments: Sequence[Experiment],
    directories: Sequence[pathlib.Path | None],
    corpus: Corpus,
    name: str,
    workspace: Workspace,
    checkpoints: pathlib.Path,
) -> list[dict[str, Any] | Diverged | None]:
    """Trains in folders that are claimed, and writes what runs leave there.

    Args:
        experiments: one, or several that differ in their seed and train together.
        directories: of each; None where it was finished elsewhere.
        corpus: the records.
        name: of the runs.
        workspace: where.
        checkpoints: folder of the checkpoints of all.

    Returns:
        Of each its summary; or why it diverged; or nothing, where it was finished.
    """
    begun = time.perf_counter()
    experiment, seeds = experiments[0], [e.seed for e in experiments]
    made_from = gather(
        experiment,
        corpus,
        [directory / "model" for directory in directories if directory],
        obtain_all(experiment, workspace),
        workspace,
        begun,
    )
    outcomes = fit(
        experiment,
        seeds,
        made_from,
        directories,
        checkpoints,
        mesh=workspace.mesh,
        shared=workspace.shared,
        say=workspace.say,
    )

    def finish(i: int) -> dict[str, Any] | Diverged | None:
        directory, outcome = directories[i], outcomes[i]
        if directory is None or outcome is None:
            return None
        if isinstance(outcome, Diverged):
            return outcome
        fitted = outcome()

        def write() -> dict[str, Any]:
            asked = fitted.num_queries + _asked_before(experiment, workspace)
            summary = {
                "name": name,
                "seed": seeds[i],
                "scale": workspace.scale,
                **({"together": seeds} if len(seeds) > 1 else {}),
                **_summary(
                    directory, experiments[i], corpus, made_from, fitted, asked, begun
                ),
            }
            results.write_card(directory, experiments[i], summary)
            run_directory.write_json(directory / "summary.json", summary)
            write_page_or_tell(directory, workspace.say)
            return summary

        return hosts.of_first(write)

    return [finish(i) for i in range(len(seeds))]


def _summary(
    directory: pathlib.Path,
    experiment: Experiment,
    corpus: Corpus,
    made_from: Ingredients,
    fitted: Fitted,
    asked: int,
    begun: float,
) -> dict[str, Any]:
    data, speed = made_from.data, fitted.speed
    return {
        "data": {
            "source": corpus.source,
            "origin": corpus.origin,
            "fingerprint": corpus.fingerprint,
            "num_train": len(data.train),
            "num_dev": len(data.dev),
            "final": data.final_name,
            "num_final": len(data.final),
            "sample": made_from.drawn.counts(),
            **({"notices": data.notices} if data.notices else {}),
        },
        **results.write(directory, experiment, data, made_from.answers, fitted),
        "teacher_queries": asked,
        "speed": {
            "examples_per_second": round(speed.examples_per_second, 1),
            "steps": fitted.num_steps,
            "seconds_train": round(speed.seconds, 1),
            "seconds_teacher": round(made_from.seconds, 1),
            # Of this process: a run that was stopped took more.
            "seconds_total": round(time.perf_counter() - begun, 1),
            **({"partial": True} if speed.partial else {}),
        },
        "versions": environment.versions(),
        "device": environment.device(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _asked_before(experiment: Experiment, workspace: Workspace) -> int:
    """How often teachers were asked by the run that this one goes on from."""
    start = experiment.start
    if start is None or start.place or start.recipe is None:
        return 0
    finished = folder_of(start.recipe, workspace) / "summary.json"
    return run_directory.read_json(finished).get("teacher_queries") or 0


def obtain_all(experiment: Experiment, workspace: Workspace) -> dict[str, Found]:
    """Where teachers and start are, by their roles; trained first if need be."""

    def folder(recipe: Experiment) -> pathlib.Path:
        return folder_of(recipe, workspace)

    def train(recipe: Experiment) -> None:
        waiting = f"{folder(recipe)}: another process is training it; waiting"
        make(recipe, workspace, on_wait=lambda: workspace.say(waiting))

    return {
        role: obtain(network, role, folder, train, workspace.say)
        for role, network in experiment.made_from.items()
    }


def describe(
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
