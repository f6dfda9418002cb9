"""Training examples per second with batches padded to their bucket, and all to 128.

Our step of the mini student, on the same examples in the same batches of an epoch:
once padded to the smallest of the widths that holds them, once to 128 tokens, which
is what the reference code of SinKD does. Both students have 128 positions.

    python -m benchmarks.padding --data-dir ../shared/data/glue
"""

import argparse
import dataclasses
import sys
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.student import (
    Epoch,
    Trainer,
    block_runner,
    blocks_of,
    examples_in,
    first_epoch,
    fresh_student,
    without_dropout,
)
from kd.errors import UserError
from kd.experiment import Experiment
from kd.models.bert import Bert
from kd.types import Params

_WIDTH = 128
_TOLERANCE = 1e-5


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = measure.parser("padding", __doc__)
    parser.add_argument("--steps", type=int, default=50, help="in a block")
    parser.add_argument("--blocks", type=int, help="default: the whole epoch")
    options = parser.parse_args()
    return measure.write_result(options.output, lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Checks that padding changes nothing, then races."""
    experiment = measure.mini_experiment(options.data_dir)
    assert isinstance(experiment.student, Bert)
    student = dataclasses.replace(experiment.student, max_length=_WIDTH)
    experiment = dataclasses.replace(experiment, student=student)
    epoch = first_epoch(experiment)
    first = epoch.first_of_widths()
    bert, params = fresh_student(experiment, epoch)
    apart = check(experiment, bert, params, first)
    contenders, compile_seconds = {}, {}
    for name, width in (("padded to the bucket", None), ("padded to 128", _WIDTH)):
        trainer = Trainer(experiment, bert, params)
        warm_up = trainer.prepare(first.batches(padded_to=width))
        compile_seconds[name] = measure.timed(trainer.run, warm_up)
        blocks = blocks_of(epoch.batches(padded_to=width), options.steps)
        blocks = blocks[: options.blocks]
        contenders[name] = block_runner(trainer, blocks)
    title = f"the epoch, {options.steps} batches a block"
    return {
        "title": "Buckets against padding to 128",
        "aim": 3.0,
        "setting": epoch.description | {"host": "batches are prepared beforehand"},
        "largest_differences": apart,
        "seconds_of_first_steps": compile_seconds,
        "races": [measure.race(contenders, examples_in(blocks), title=title)],
    }


def check(
    experiment: Experiment, bert: Bert, params: Params, first: Epoch
) -> dict[str, float]:
    """Compares batches padded either way, dropout off.

    Returns:
        The largest relative differences of logits and losses.

    Raises:
        UserError: one of them is larger than 1e-5.
    """
    largest = {"logits": 0.0, "loss": 0.0}
    for widths in zip(first.batches(), first.batches(padded_to=_WIDTH), strict=True):
        found = {name: [] for name in largest}
        for batch in widths:
            # A trainer each, for the first step changes the parameters.
            trainer = Trainer(experiment, without_dropout(bert), params)
            (prepared,) = trainer.prepare([batch])
            found["logits"].append(np.asarray(trainer.logits(prepared)))
            found["loss"].append(np.asarray(trainer.step(prepared)["loss"]))
        for name, (short, long) in found.items():
            apart = float(np.abs(short - long).max() / np.abs(short).max())
            largest[name] = max(largest[name], apart)
            if not apart <= _TOLERANCE:
                raise UserError(
                    f"padding to {_WIDTH} changes the {name} by {apart:.1e}, more "
                    f"than {_TOLERANCE:.0e}; nothing was timed"
                )
    return largest


if __name__ == "__main__":
    sys.exit(main())
