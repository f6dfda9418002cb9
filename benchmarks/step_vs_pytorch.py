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
import logging
import os
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
from kd.models import hub
from kd.models.bert import Bert
from kd.types import Params

try:
    import torch
    import transformers

    from benchmarks import pytorch_student
    from benchmarks.pytorch_student import Variant
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
    warm_up = [epoch.of_width(width).batches()[0] for width in experiment.widths]
    bert, params = fresh_student(experiment, epoch)
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = pathlib.Path(directory)
        agreement = check(experiment, bert, params, checkpoint, warm_up)
        ours: dict[str, Trains] = {_OURS: Trainer(experiment, bert, params)}
        hub.save_pretrained(checkpoint, bert, params, labels=experiment.data.labels)
        eager, compiled = (
            {
                f"PyTorch {variant}": pytorch_student.Trainer(
                    experiment, checkpoint, variant
                )
                for variant in _variants(compiled=compiled)
            }
            for compiled in (False, True)
        )
    if options.no_compile:
        compiled = {}
    everyone = ours | eager | compiled
    first_seconds = {name: _warm(name, it, warm_up) for name, it in everyone.items()}
    trials = _race("trials", everyone, blocks[:3])
    chosen = ours | _fastest(eager, trials) | _fastest(compiled, trials)
    races = [_race(f"the epoch, {options.steps} batches a block", chosen, blocks)]
    for width in experiment.widths:
        same = blocks_of(epoch.of_width(width).batches(), options.steps // 2)
        races.append(_race(f"only {width} tokens", chosen, same[: options.blocks or 9]))
    return {
        "title": "One training step against PyTorch",
        "aim": 1.0,
        "setting": {
            "data": epoch.origin,
            "batch_size": experiment.batch_size,
            "batches": {w: len(epoch.of_width(w).plan) for w in experiment.widths},
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
    hub.save_pretrained(checkpoint, bert, params, labels=experiment.data.labels)
    network = bert.build(experiment.data.num_classes)
    found = {}
    for variant in _variants(compiled=False):
        ours = Trainer(experiment, bert, params)
        theirs = pytorch_student.Trainer(experiment, checkpoint, variant)
        differences = {"logits": 0.0, "loss": 0.0, "grad_norm": 0.0}

        def compare(name, our_value, their_value, differences=differences):
            our_value, their_value = np.asarray(our_value), their_value.numpy()
            apart = np.abs(our_value - their_value).max() / np.abs(our_value).max()
            differences[name] = max(differences[name], float(apart))

        prepared = theirs.prepare(batches)
        for batch, their_batch in zip(batches, prepared, strict=True):
            our_logits = network.apply(params, batch, None).logits
            compare("logits", our_logits, theirs.logits(their_batch))
        for batch, their_batch in zip(
            ours.prepare(batches) * 3, prepared * 3, strict=True
        ):
            our_metrics, their_metrics = ours.step(batch), theirs.step(their_batch)
            for name in ("loss", "grad_norm"):
                compare(name, our_metrics[name], their_metrics[name])
        found[str(variant)] = differences
        for name, apart in differences.items():
            # Not `apart > _TOLERANCE`: a NaN must not pass.
            if not apart <= _TOLERANCE:
                raise UserError(
                    f"{name} of PyTorch ({variant}) is {apart:.1e} off ours, more than "
                    f"{_TOLERANCE:.0e}; nothing was timed"
                )
    return found


def _prepare_pytorch() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("torch").setLevel(logging.ERROR)
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # XLA takes as many
    # As XLA does: the moments of words not seen for long decay to denormal numbers.
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    # An earlier compilation on this machine must not shorten the seconds reported.
    torch._inductor.config.force_disable_caches = True


def _variants(*, compiled: bool) -> list[Variant]:
    attention, optimizer, sinkhorn = (
        ("sdpa", "eager"), ("fused", "foreach"), ("matrix", "scaling")
    )  # fmt: skip
    if compiled:  # minutes each; what wins there wins here
        optimizer, sinkhorn = ("fused",), ("matrix",)
    return [
        Variant(attention=a, optimizer=o, sinkhorn=s, compiled=compiled)
        for a, o, s in itertools.product(attention, optimizer, sinkhorn)
    ]


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
    median = {name: statistics.median(trials["seconds"][name]) for name in trainers}
    return {name: trainers[name] for name in sorted(trainers, key=median.get)[:1]}


if __name__ == "__main__":
    sys.exit(main())
