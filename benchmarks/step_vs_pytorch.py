"""Training examples per second of the mini student: this project and PyTorch.

Both train the student of `sst2_sinkd` on the same batches of an epoch, with cached
teacher logits, dropout, clipping and AdamW, on as many threads, in one process, in
blocks of steps that take turns. Batches are prepared beforehand on both sides. First
both are shown to compute the same thing.

    python -m benchmarks.step_vs_pytorch --data-dir ../shared/data/glue
"""

import argparse
import dataclasses
import itertools
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import measure
from benchmarks.student import (
    HostBatch,
    Trainer,
    Trains,
    block_runner,
    blocks_of,
    examples_in,
    first_epoch,
    fresh_student,
    without_dropout,
)
from kd.errors import UserError
from kd.experiment import Experiment
from kd.models import bert_checkpoint
from kd.models.bert import Bert
from kd.types import Params

try:
    import torch
    import transformers

    from benchmarks import pytorch_student
    from benchmarks.pytorch_student import Attention, Optimizer, Sinkhorn, Variant
except ImportError as error:
    sys.exit(f"error: {error.name} is missing; make bench installs it")

_OURS = "this project"
_TOLERANCE = 1e-4


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = measure.parser("step_vs_pytorch", __doc__)
    parser.add_argument("--steps", type=int, default=50, help="in a block")
    parser.add_argument("--blocks", type=int, help="default: the whole epoch")
    parser.add_argument(
        "--no-compile", action="store_true", help="leave torch.compile out"
    )
    options = parser.parse_args()
    return measure.write_result(options.output, lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Checks, chooses the fastest PyTorch, races."""
    _prepare_pytorch()
    experiment = measure.mini_experiment(options.data_dir)
    epoch = first_epoch(experiment)
    blocks = blocks_of(epoch.batches(), options.steps)[: options.blocks]
    warm_up = epoch.first_of_widths().batches()
    bert, params = fresh_student(experiment, epoch)
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = pathlib.Path(directory)
        agreement = check(experiment, bert, params, checkpoint, warm_up)
        ours: dict[str, Trains] = {_OURS: Trainer(experiment, bert, params)}
        bert_checkpoint.save_pretrained(
            checkpoint, bert, params, labels=experiment.data.labels
        )
        eager, compiled = (
            _trainers(experiment, checkpoint, _variants(compiled=compiled))
            for compiled in (False, True)
        )
    if options.no_compile:
        compiled = {}
    everyone = ours | eager | compiled
    first_seconds = {name: _warm(name, it, warm_up) for name, it in everyone.items()}
    trials = _race("trials", everyone, blocks[:3])
    chosen = ours | _fastest(eager, trials) | _fastest(compiled, trials)
    races = [_race(f"the epoch, {options.steps} batches a block", chosen, blocks)]
    for width in epoch.description["batches_of_width"]:
        same = blocks_of(epoch.of_width(width).batches(), options.steps // 2)
        races.append(_race(f"only {width} tokens", chosen, same[: options.blocks or 9]))
    return {
        "title": "One training step against PyTorch",
        "aim": 1.0,
        "setting": epoch.description
        | {
            "num_params": sum(leaf.size for leaf in jax.tree.leaves(params)),
            "threads": torch.get_num_threads(),
            "host": "batches are prepared beforehand on both sides",
        },
        "largest_differences": agreement,
        "seconds_of_first_steps": first_seconds,
        "races": races,
        "trials": trials,
    }


def check(
    experiment: Experiment,
    bert: Bert,
    params: Params,
    checkpoint: pathlib.Path,
    batches: list[HostBatch],
) -> dict[str, dict[str, float]]:
    """Trains both sides for some steps without dropout; they must not part.

    Returns:
        The largest relative differences of logits before the first step, and of the
        losses and gradient norms of all steps, for either way to write Sinkhorn.

    Raises:
        UserError: one of them is larger than 1e-4.
    """
    bert = without_dropout(bert)
    # At the full learning rate from the start, so that the optimizer is checked too.
    recipe = dataclasses.replace(experiment.optimizer, warmup=0.0)
    experiment = dataclasses.replace(experiment, optimizer=recipe)
    bert_checkpoint.save_pretrained(
        checkpoint, bert, params, labels=experiment.data.labels
    )
    ours = _history(Trainer(experiment, bert, params), batches)
    found = {}
    for variant in _variants(compiled=False):
        theirs = _history(
            pytorch_student.Trainer(experiment, checkpoint, variant), batches
        )
        found[str(variant)] = {name: _apart(ours[name], theirs[name]) for name in ours}
        for name, apart in found[str(variant)].items():
            if not apart <= _TOLERANCE:  # also if it is NaN
                raise UserError(
                    f"{name} of PyTorch ({variant}) is {apart:.1e} off ours, more than "
                    f"{_TOLERANCE:.0e}; nothing was timed"
                )
    return found


def _history(
    trainer: Trainer | pytorch_student.Trainer, batches: list[HostBatch]
) -> dict[str, list[np.ndarray]]:
    """Logits before the first step, loss and gradient norm of every step."""
    prepared = trainer.prepare(batches)
    logits = [np.asarray(trainer.logits(batch)) for batch in prepared]
    metrics = [trainer.step(batch) for batch in prepared * 3]
    return {"logits": logits} | {
        name: [np.asarray(row[name]) for row in metrics]
        for name in ("loss", "grad_norm")
    }


def _apart(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Largest difference, relative to the largest number of its array."""
    return max(
        float(np.abs(our - their).max() / np.abs(our).max())
        for our, their in zip(ours, theirs, strict=True)
    )


def _prepare_pytorch() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    measure.prepare_pytorch()
    # An earlier compilation on this machine must not shorten the seconds reported.
    torch._inductor.config.force_disable_caches = True


def _variants(*, compiled: bool) -> list[Variant]:
    attentions: list[Attention] = ["sdpa", "eager"]
    optimizers: list[Optimizer] = ["fused", "foreach"]
    sinkhorns: list[Sinkhorn] = ["matrix", "scaling"]
    if compiled:  # takes minutes: the choices that are the fastest in eager mode
        attentions, optimizers = attentions[:1], optimizers[:1]
        sinkhorns = sinkhorns[:1]
    return [
        Variant(attention=a, optimizer=o, sinkhorn=s, compiled=compiled)
        for a, o, s in itertools.product(attentions, optimizers, sinkhorns)
    ]


def _trainers(
    experiment: Experiment, checkpoint: pathlib.Path, variants: list[Variant]
) -> dict[str, Trains]:
    return {
        f"PyTorch, {variant}": pytorch_student.Trainer(experiment, checkpoint, variant)
        for variant in variants
    }


def _warm(name: str, trainer: Trains, batches: list[HostBatch]) -> float:
    """Seconds of the first step of every width, compilation in the main."""
    seconds = measure.timed(trainer.run, trainer.prepare(batches))
    print(f"{name}: first steps took {seconds:.1f} s", flush=True)
    trainer.run(trainer.prepare(batches * 3))
    return seconds


def _race(
    title: str, trainers: dict[str, Trains], blocks: list[Sequence[HostBatch]]
) -> dict[str, Any]:
    contenders = {name: block_runner(it, blocks) for name, it in trainers.items()}
    return measure.race(contenders, examples_in(blocks), title=title)


def _fastest(trainers: dict[str, Trains], trials: dict[str, Any]) -> dict[str, Trains]:
    """The one with the smallest median; none of none."""

    def median(name: str) -> float:
        return statistics.median(trials["seconds"][name])

    return {name: trainers[name] for name in sorted(trainers, key=median)[:1]}


if __name__ == "__main__":
    sys.exit(main())
