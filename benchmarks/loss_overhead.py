"""What each loss adds to a training step, over cross-entropy alone.

The step of the mini student of `sst2_sinkd` on 64 tokens: forwards, loss, backwards,
AdamW. The objective is cross-entropy with the labels, and the same plus one loss; the
teacher's logits come with the batch. All data are random, no row is padding.

    python -m benchmarks.loss_overhead
"""

import argparse
import concurrent.futures
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks import measure
from docs.conventions_page.page import LOSSES, described
from kd.data.sentences import TextTask
from kd.experiment import Experiment
from kd.models.bert import Bert
from kd.objective import CrossEntropy, Loss, Mix
from kd.procedures.offline import Offline
from kd.procedures.procedure import Setting
from kd.train.mesh import data_mesh, replicate, shard_batch

_LENGTH = 64
_CROSS_ENTROPY = "CrossEntropy()"


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = measure.parser("loss_overhead", __doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--blocks", type=int, default=21)
    parser.add_argument("--losses", type=int, help="only the first ones")
    parser.add_argument(
        "--block-seconds", type=float, default=0.1, help="steps to fill a block with"
    )
    options = parser.parse_args()
    return measure.write_result(options.output, lambda: benchmark(options))


def objectives(losses: tuple[Loss, ...] = LOSSES) -> dict[str, Mix]:
    """Cross-entropy, first, and with every loss."""
    alone = 1.0 * CrossEntropy()
    return {_CROSS_ENTROPY: alone} | {described(x): alone + 1.0 * x for x in losses}


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Compiles all steps of a batch size, then races them."""
    experiment = measure.mini_experiment(None)
    bert = student(experiment)
    races, compile_seconds = [], {}
    for batch_size in options.batch_sizes:
        started = time.perf_counter()
        contenders = steps(experiment, objectives(LOSSES[: options.losses]), batch_size)
        slowest = max(measure.timed(step) for step in contenders.values())
        compile_seconds[batch_size] = time.perf_counter() - started
        num_steps = max(1, round(options.block_seconds / slowest))
        base, *losses = contenders
        races.append(
            {
                "batch_size": batch_size,
                "steps_in_block": num_steps,
                # Each loss beside the base, since a machine's speed wanders more
                # within a minute than a loss costs.
                "pairs": {
                    name: measure.race(
                        {
                            side: _repeated(contenders[side], num_steps)
                            for side in (base, name)
                        },
                        [batch_size * num_steps] * options.blocks,
                        title=f"B={batch_size}, {name}",
                    )["seconds"]
                    for name in losses
                },
            }
        )
    return {
        "title": "What a loss adds to the training step",
        "setting": {
            "data": f"random, {_LENGTH} tokens, "
            f"{experiment.data.target.num_outputs} classes",
            "student": dataclasses.asdict(bert),
        },
        "seconds_until_warm": compile_seconds,
        "overheads": races,
    }


def student(experiment: Experiment) -> Bert:
    """The mini student, long enough."""
    assert isinstance(experiment.student, Bert)
    assert isinstance(experiment.data, TextTask)
    size = experiment.data.tokenizer.size
    return dataclasses.replace(experiment.student, vocab_size=size, max_length=_LENGTH)


def steps(
    experiment: Experiment, compared: Mapping[str, Mix], batch_size: int
) -> dict[str, Callable[[], None]]:
    """A compiled, warm training step for every objective, each with its own state."""
    mesh = data_mesh()
    bert = student(experiment)
    model = bert.build(experiment.data.target.num_outputs)
    batch = shard_batch(random_batch(bert.vocab_size, experiment, batch_size), mesh)
    params = jax.device_get(jax.jit(model.init)(jax.random.key(0), {}))

    def prepare(objective: Mix) -> Callable[[], None]:
        optimizer = experiment.optimizer.build(experiment.num_steps)
        training = Offline().build(
            Setting({"student": model}, (None,), objective, optimizer, mesh=mesh)
        )
        state = training.init(jax.random.key(0), {"student": params}, None, batch)
        state = replicate(state, mesh)
        compiled = training.step.lower(state, None, batch).compile()  # pyrefly: ignore[missing-attribute]

        def step() -> None:
            nonlocal state
            state, _ = compiled(state, None, batch)
            jax.block_until_ready(state)

        step()
        return step

    # XLA compiles one program on one core.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        prepared = list(pool.map(prepare, compared.values()))
    return dict(zip(compared, prepared, strict=True))


def random_batch(
    vocab_size: int, experiment: Experiment, batch_size: int
) -> dict[str, np.ndarray]:
    """Tokens, labels, and logits of a teacher."""
    random = np.random.default_rng(0)
    num_classes = experiment.data.target.num_outputs
    shape = (batch_size, _LENGTH)
    return {
        "tokens": random.integers(0, vocab_size, shape, dtype=np.int32),
        "token_mask": np.ones(shape, bool),
        "labels": random.integers(0, num_classes, batch_size, dtype=np.int32),
        "mask": np.ones(batch_size, bool),
        "teacher_logits": random.normal(0, 2, (batch_size, num_classes)).astype(
            np.float32
        ),
    }


def _repeated(step: Callable[[], None], num_steps: int) -> Callable[[int], None]:
    def block(_: int) -> None:
        for _ in range(num_steps):
            step()

    return block


if __name__ == "__main__":
    sys.exit(main())
