"""What a finished run leaves behind, besides its log."""

import pathlib
from typing import Any

import jax
import numpy as np

from kd.analysis.transport_plan import transport_plan
from kd.data.task import Prepared
from kd.evaluate import fidelity
from kd.evaluate.scores import scores
from kd.experiment import Experiment
from kd.fit import Fitted
from kd.models import saved
from kd.teacher import TeacherOnData
from kd.train import metrics_log


def write(
    directory: pathlib.Path,
    experiment: Experiment,
    data: Prepared,
    teacher: TeacherOnData | None,
    fitted: Fitted,
) -> dict[str, Any]:
    """Writes the network, its predictions on dev and a transport plan.

    Returns:
        The scores of student and teacher, for the summary.
    """
    labels = data.dev.labels
    saved.save(
        directory / "model",
        fitted.student,
        fitted.params,
        labels=experiment.data.labels,
    )
    predictions = {"labels": labels, "student_logits": fitted.dev_logits}
    if teacher is not None:
        predictions["teacher_logits"] = teacher.dev_logits
        plan = transport_plan(
            experiment.objective, labels, fitted.dev_logits, teacher.dev_logits
        )
        np.savez(directory / "plan.npz", allow_pickle=False, **plan)
    np.savez(directory / "predictions.npz", allow_pickle=False, **predictions)

    log = metrics_log.read(directory / "metrics.jsonl")
    best = max(
        (row for row in log if row["split"] == "dev"), key=lambda row: row["accuracy"]
    )
    results: dict[str, Any] = {
        "student": {
            **scores(fitted.dev_logits, labels),
            "num_params": _count(fitted.params),
            # Selected on the split it is measured on: an optimistic number.
            "best_accuracy": best["accuracy"],
            "best_step": best["step"],
        },
        "teacher": None,
        "fidelity": None,
    }
    if teacher is not None:
        both = fitted.dev_logits, teacher.dev_logits
        results["teacher"] = {
            **scores(teacher.dev_logits, labels),
            "num_params": _count(teacher.params),
            "source": teacher.source,
        }
        results["fidelity"] = {
            "agreement": fidelity.agreement(*both),
            "kl": fidelity.kl(*both),
            "total_variation": fidelity.total_variation(*both),
        }
    return results


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
