"""A whole distillation run with the teacher's logits cached, and with it in the step.

`sst2_sinkd` at scale mini by `kd.run`, all its steps, from the data on disk to the
report. The teacher is trained before. Each run with cached logits computes them anew,
so that their cost is inside. The runs take turns, in one process; every one compiles
its own step.

    python -m benchmarks.cached_teacher --data-dir ../shared/data/glue
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tqdm

from benchmarks import measure
from kd import config, run
from kd.data import sources
from kd.errors import UserError
from kd.experiment import Experiment
from kd.train import metrics_log
from kd.train.mesh import data_mesh

_TOLERANCE = 1e-5
_CHECKED_STEPS = 20


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = measure.parser("cached_teacher", __doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of either kind")
    parser.add_argument("--steps", type=int, help="of a run, if not the recipe's")
    parser.add_argument(
        "--teacher", help="folder of a trained one; without it one is trained first"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as runs:
        return measure.write_result(
            options.output, lambda: benchmark(options, pathlib.Path(runs))
        )


def benchmark(options: argparse.Namespace, runs: pathlib.Path) -> dict[str, Any]:
    """Checks that the losses agree, then lets whole runs take turns."""
    experiment = measure.mini_experiment(options.data_dir)
    teacher = options.teacher or _trained_teacher(experiment, runs)
    experiment = config.override(experiment, f"teacher.directory={teacher}")
    if options.steps:
        experiment = config.override(experiment, f"num_steps={options.steps}")
    apart = check(experiment, runs)

    speeds: dict[str, list[dict[str, float]]] = {"cached": [], "live": []}

    def contender(logits: str) -> Callable[[int], None]:
        def one_run(i: int) -> None:
            shutil.rmtree(runs / "teachers" / "logits", ignore_errors=True)
            summary = _run(experiment, logits, f"{logits}_{i}", runs)
            speeds[logits].append(summary["speed"])

        return one_run

    examples = [experiment.num_steps * experiment.batch_size] * options.rounds
    contenders = {f"{logits} logits": contender(logits) for logits in speeds}
    whole = measure.race(contenders, examples, title="whole runs")
    steps_alone = {
        "title": "their training steps alone",
        "examples": examples,
        "seconds": {
            f"{logits} logits": [
                num_examples / speed["examples_per_second"]
                for num_examples, speed in zip(examples, rows, strict=True)
            ]
            for logits, rows in speeds.items()
        },
    }
    return {
        "title": "A run with cached logits against one with the teacher in the step",
        "aim": 1.5,
        "setting": {
            "data": sources.load(experiment.data).origin,
            "steps": experiment.num_steps,
            "batch_size": experiment.batch_size,
        },
        "largest_differences": {"loss": apart},
        "races": [whole, steps_alone],
        "speeds": speeds,
    }


def check(experiment: Experiment, runs: pathlib.Path) -> float:
    """The losses of short runs of either kind; they warm the process up, too.

    Returns:
        The largest relative difference.

    Raises:
        UserError: it is larger than 1e-5.
    """
    short = config.override(experiment, f"num_steps={_CHECKED_STEPS}", "log_every=1")
    cached, live = (
        _losses(short, logits, f"check_{logits}", runs) for logits in ("cached", "live")
    )
    apart = float(np.max(np.abs(cached - live) / np.abs(live)))
    if not apart <= _TOLERANCE:
        raise UserError(
            f"losses with cached and live logits are {apart:.1e} apart, more than "
            f"{_TOLERANCE:.0e}; nothing was timed"
        )
    return apart


def _losses(
    experiment: Experiment, logits: str, name: str, runs: pathlib.Path
) -> np.ndarray:
    _run(experiment, logits, name, runs)
    log = metrics_log.read(runs / name / str(experiment.seed) / "metrics.jsonl")
    return np.array([row["loss"] for row in log if row["split"] == "train"])


def _trained_teacher(experiment: Experiment, runs: pathlib.Path) -> pathlib.Path:
    assert experiment.teacher is not None
    run.run(experiment.teacher.recipe, "teacher", _workspace(runs))
    return runs / "teacher" / str(experiment.teacher.recipe.seed)


def _run(
    experiment: Experiment, logits: str, name: str, runs: pathlib.Path
) -> dict[str, Any]:
    experiment = config.override(experiment, f"teacher.logits={logits}")
    return run.run(experiment, name, _workspace(runs))


def _workspace(runs: pathlib.Path) -> run.Workspace:
    return run.Workspace(runs, "mini", data_mesh(), tqdm.tqdm.write)


if __name__ == "__main__":
    sys.exit(main())
