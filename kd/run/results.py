"""What a finished run leaves behind, besides its log."""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from kd import config
from kd.analysis.transport_plan import transport_plan
from kd.atomic import atomic_write
from kd.data.task import Prepared, judged
from kd.experiment import Experiment
from kd.models import card, saved
from kd.networks.answers import Answers
from kd.networks.place import is_directory
from kd.run import keep
from kd.run.fit import Fitted
from kd.run.samples import write_samples
from kd.train import metrics_log


def write(
    directory: pathlib.Path,
    experiment: Experiment,
    data: Prepared,
    answers: Answers | None,
    fitted: Fitted,
) -> dict[str, Any]:
    """Writes the network, final predictions and a transport plan.

    Returns:
        The scores of student and teacher, for the summary.
    """
    targets, target = judged(data.final), experiment.data.target
    exported = experiment.procedure.exported
    student = fitted.learnt[exported]
    keep.save(directory / keep.LAST, experiment, student.network, student.params)
    outputs = {"student": student.outputs}
    outputs |= {n: one.outputs for n, one in fitted.learnt.items() if n != exported}
    if answers is not None and answers.final is not None:
        outputs["teacher"] = answers.final
        # Of a class for each example, whatever else is kept of other answers.
        if target.has_classes and student.outputs.ndim == 2:
            plan = transport_plan(
                experiment.objective, targets, student.outputs, answers.final
            )
            np.savez(directory / "plan.npz", allow_pickle=False, **plan)
    write_samples(
        directory,
        experiment.data,
        data,
        student,
        answers,
        experiment.combine,
        fitted.mesh,
    )
    predictions = target.predictions(targets, outputs)
    np.savez(directory / "predictions.npz", allow_pickle=False, **predictions)

    results: dict[str, Any] = {
        "task": {"name": experiment.data.name} | target.described(),
        "student": {
            **target.scores(student.outputs, targets),
            "num_params": _count(student.params),
            **_on_dev(directory, target.main),
        },
        "others": {
            name: {
                **target.scores(learnt.outputs, targets),
                "num_params": _count(learnt.params),
            }
            for name, learnt in fitted.learnt.items()
            if name != exported
        },
        "teacher": None,
        "fidelity": None,
    }
    if answers is not None:
        results["teacher"] = {
            "num_params": sum(_count(teacher.params) for teacher in answers.teachers),
            "source": answers.source,
            **({"kept": [one.facts for one in answers.kept]} if answers.kept else {}),
        }
        if answers.final is not None and answers.dev is not None:
            results["teacher"] |= target.scores(answers.final, targets)
            # The bar of the student's evaluations, where these are of another split.
            bar = target.main.compute(answers.dev, judged(data.dev))
            results["teacher"]["dev"] = bar
            results["fidelity"] = target.compare(student.outputs, answers.final)
    return results


def write_card(
    directory: pathlib.Path, experiment: Experiment, summary: dict[str, Any]
) -> None:
    """Writes the network's model card, `model/README.md`."""
    network, labels = saved.read_config(directory / "model")
    names = [metric["name"] for metric in summary["task"]["metrics"]]
    taught = [
        "a network in this project's format or transformers'"
        if teacher.place and is_directory(teacher.place)
        else teacher.place or "a network trained by its own recipe"
        for teacher in experiment.teachers
    ]
    start = experiment.start.place if experiment.start else ""
    begun = f" Its weights began as those of {start}, under the terms of these."
    text = card.model_card(
        name=f"{summary['name']}, seed {summary['seed']}",
        architecture=network,
        labels=labels,
        head=experiment.data.head,
        data=f"{summary['data']['origin']}; scored on {summary['data']['final']}.",
        scores={name: summary["student"][name] for name in names},
        # Without the places of the machine that trained it.
        recipe=json.dumps(config.identity(config.to_json(experiment)), indent=1),
        teacher="; ".join(taught),
        license_note="The licence of the data, and of the teacher's weights, applies."
        + (begun if start and not is_directory(start) else ""),
    )
    with atomic_write(directory / "model" / "README.md") as file:
        file.write(text)


def _on_dev(directory: pathlib.Path, metric: Any) -> dict[str, Any]:
    """The last evaluation on dev, which settings are chosen by, and the best.

    The best is selected on the split it is measured on, so optimistic.
    """
    best = keep.best_evaluation(directory, metric)
    assert best is not None  # The last step is evaluated.
    log = metrics_log.read(directory / "metrics.jsonl")
    *_, last = (row for row in log if row["split"] == "dev")
    return {
        "dev": last[metric.name],
        "best": {
            "metric": metric.name, "value": best[metric.name], "step": best["step"],
        },
    }  # fmt: skip


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
