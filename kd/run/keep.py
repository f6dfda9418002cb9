"""The networks that a run keeps: of its last step and, if asked, of the best on dev."""

import pathlib
import shutil
from typing import Any

from kd.evaluate.metric import Metric
from kd.experiment import Experiment
from kd.models import saved
from kd.train import metrics_log
from kd.types import Architecture, Params

LAST, BEST = "model", "best"
"""Their folders in that of the run, each with all that a network needs."""


def save(
    directory: pathlib.Path,
    experiment: Experiment,
    network: Architecture,
    params: Params,
) -> None:
    """Writes a network that has learnt the experiment's task."""
    task = experiment.data
    saved.save(
        directory,
        network,
        params,
        labels=task.labels,
        head=task.head,
        problem_type=task.target.problem_type,
        special_tokens=task.special_tokens(directory),
    )


def save_if_best(
    run: pathlib.Path,
    experiment: Experiment,
    network: Architecture,
    params: Params,
    found: dict[str, Any],
) -> None:
    """Keeps the network of an evaluation, unless an earlier one was as good.

    The evaluations before are those in the log. So what a stopped run kept of steps
    that its log has lost again is replaced when these steps are reached again, and the
    folder ends as that of a run that never stopped.

    Args:
        run: folder of the run.
        experiment: what is run.
        network: the sizes of what is evaluated.
        params: its parameters.
        found: its metrics on dev, not yet in the log.
    """
    metric = experiment.data.target.main
    before = best_evaluation(run, metric)
    if before is not None and _best([before, found], metric) is before:
        return
    # What turns records into inputs; the run's last network is not there yet.
    shutil.copytree(run / LAST, run / BEST, dirs_exist_ok=True)
    save(run / BEST, experiment, network, params)


def best_evaluation(run: pathlib.Path, metric: Metric) -> dict[str, Any] | None:
    """The row of the best evaluation in a run's log, the first of equals.

    Selected on the split that it is measured on, so optimistic.
    """
    log = metrics_log.read(run / "metrics.jsonl")
    rows = [row for row in log if row["split"] == "dev"]
    return _best(rows, metric) if rows else None


def _best(rows: list[dict[str, Any]], metric: Metric) -> dict[str, Any]:
    choose = max if metric.higher_is_better else min
    return choose(rows, key=lambda row: row[metric.name])
