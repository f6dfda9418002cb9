"""A whole distillation run with the teacher's logits cached, and with it in the step.

`sst2_sinkd` at scale mini by `kd.run`, all its steps, from the data on disk to the
report. The teacher is trained before. Two kinds of runs with cached logits: the first
student of a teacher, which computes them, and a later one, which finds them on disk.
The runs take turns, in one process. What they compile is read from JAX's compilation
cache, as by everyone who has run the experiment before.

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
from kd import config, environment, run
from kd.data import sources
from kd.errors import UserError
from kd.experiment import Experiment
from kd.train import metrics_log
from kd.train.mesh import data_mesh

_TOLERANCE = 1e-5
_CHECKED_STEPS = 20

FIRST = "cached logits, computed in the run"
LATER = "cached logits, of an earlier run"
LIVE = "live logits"

Contender = Callable[[int], None]


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = measure.parser("cached_teacher", __doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind")
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
    experiment = config.override(experiment, f"teacher={teacher}")
    if options.steps:
        experiment = config.override(experiment, f"num_steps={options.steps}")
    environment.keep_compiled(runs / "compiled")
    apart = check(experiment, runs)

    speeds: dict[str, list[dict[str, float]]] = {}

    def contender(name: str, logits: str, *, computed_before: bool) -> Contender:
        speeds[name] = []

        def one_run(i: int) -> None:
            if not computed_before:
                shutil.rmtree(runs / "networks" / "answers", ignore_errors=True)
            summary = _run(experiment, logits, f"{name} {i}", runs)
            speeds[name].append(summary["speed"])

        return one_run

    examples = [experiment.num_steps * experiment.batch_size] * options.rounds
    # Whoever begins, some run before has left logits for the later student.
    contenders = {
        FIRST: contender(FIRST, "cached", computed_before=False),
        LATER: contender(LATER, "cached", computed_before=True),
        LIVE: contender(LIVE, "live", computed_before=True),
    }
    whole = measure.race(contenders, examples, title="whole runs")
    seconds = whole["seconds"]
    steps_alone = {
        name: [
            num_examples / speed["examples_per_second"]
            for num_examples, speed in zip(examples, speeds[name], strict=True)
        ]
        for name in (LATER, LIVE)
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
        "races": [
            _pair("whole runs, first student", examples, seconds, FIRST),
            _pair("whole runs, later student", examples, seconds, LATER),
            _pair("training steps alone", examples, steps_alone, LATER),
        ],
        "speeds": speeds,
    }


def _pair(
    title: str, examples: list[int], seconds: dict[str, list[float]], cached: str
) -> dict[str, Any]:
    both = {name: seconds[name] for name in (cached, LIVE)}
    return {"title": title, "examples": examples, "seconds": both}


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
    assert experiment.teacher and experiment.teacher.recipe
    run.run(experiment.teacher.recipe, "teacher", _workspace(runs))
    return runs / "teacher" / str(experiment.teacher.recipe.seed)


def _run(
    experiment: Experiment, logits: str, name: str, runs: pathlib.Path
) -> dict[str, Any]:
    experiment = config.override(experiment, f"answers={logits}")
    return run.run(experiment, name, _workspace(runs))


def _workspace(runs: pathlib.Path) -> run.Workspace:
    return run.Workspace(runs, "mini", data_mesh(), tqdm.tqdm.write)


if __name__ == "__main__":
    sys.exit(main())
