"""What a finished run left in its directory, read back."""

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from kd import run_directory
from kd.errors import UserError
from kd.train import metrics_log


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """The files of one run that its page shows.

    Attributes:
        directory: where they lie.
        config: the resolved experiment, from config.json.
        summary: the final numbers, from summary.json.
        rows: training and evaluation rows as logged, from metrics.jsonl.
        predictions: what the task keeps of dev, from predictions.npz: labels [n] and
            logits [n, v], or targets and numbers [n]; empty without it.
        plan: the transport plan of some dev examples, from plan.npz; empty without it.
        samples: prompts, and what networks wrote after them, from samples.json; none
            without it.
    """

    directory: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    rows: list[dict[str, Any]]
    predictions: Mapping[str, np.ndarray]
    plan: Mapping[str, np.ndarray]
    samples: Sequence[Mapping[str, str]] = ()

    @property
    def classes(self) -> list[str]:
        """Names of the classes, as the task gives them; [] where it is not known."""
        task = (self.config.get("experiment") or {}).get("data") or {}
        return [str(label) for label in (task.get("target") or {}).get("labels", [])]

    @property
    def main(self) -> Mapping[str, Any]:
        """The task's main metric, as the summary describes it."""
        return main_metric(self.summary)

    def series(
        self, split: str, name: str
    ) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n"]]:
        """Steps and values of one metric, from the rows that have it."""
        rows = [
            row
            for row in self.rows
            if row.get("split") == split and row.get(name) is not None
        ]
        steps = np.array([row["step"] for row in rows], dtype=np.int64)
        return steps, np.array([row[name] for row in rows], dtype=np.float64)

    def terms(self) -> list[str]:
        """Names `loss/...` of the terms of the loss."""
        training = (row for row in self.rows if row.get("split") == "train")
        names = dict.fromkeys(name for row in training for name in row)
        return [name for name in names if name.startswith("loss/")]


def main_metric(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """The main metric of a run's task; {} where the summary does not say."""
    task = summary.get("task") or {}
    metrics = {metric.get("name"): metric for metric in task.get("metrics") or []}
    return metrics.get(task.get("main")) or {}


def read_run(directory: str | Path) -> Run:
    """Reads a run directory.

    Args:
        directory: holds config.json, summary.json and metrics.jsonl; predictions.npz
            and plan.npz are optional.

    Raises:
        UserError: a required file is missing or damaged.
    """
    directory = Path(directory)
    for name in ("config.json", "metrics.jsonl", "summary.json"):
        if not (directory / name).is_file():
            raise UserError(
                f"{directory} has no {name}; expected the folder of a finished run"
            )
    return Run(
        directory=directory,
        config=run_directory.read_json(directory / "config.json"),
        summary=run_directory.read_json(directory / "summary.json"),
        rows=metrics_log.read(directory / "metrics.jsonl"),
        predictions=_arrays(directory / "predictions.npz"),
        plan=_arrays(directory / "plan.npz"),
        samples=_samples(directory / "samples.json"),
    )


def _samples(path: Path) -> Sequence[Mapping[str, str]]:
    return run_directory.read_json(path)["samples"] if path.exists() else ()


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        # Opened here, since np.load leaves a damaged one open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    # A zip file with an error in it, an array file instead, and what else np.load says.
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} is damaged: {error}; without it the page lacks its figures only"
        ) from error
