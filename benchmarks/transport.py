"""SinKD in value and gradient: ours against the reference loss in PyTorch.

    python -m benchmarks.transport

Both on all cores, in one process, block by block in turn. The PyTorch side is written
from the formula as the authors' code evaluates it, normalising the whole matrix at
every step, eager and through `torch.compile`. Before anything is timed both must
agree. Peak memory is measured in a fresh process for each side. JAX compiles as
`make exp` has it compile; with `XLA_FLAGS=` before the command, as it comes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from kd.divergences import SinKD
from kd.errors import UserError

BATCH_SIZES = (32, 128, 512, 2048)
NUM_CLASSES = (2, 1000)
MEMORY_AT = (2048, 2)
LONG_BATCHES = (16_384, 65_536)
"""Of two classes, which only our side can do: a matrix of the last has 17 GB."""
NUM_BLOCKS = 11
BLOCK_SECONDS = 0.5
"""So long every contender repeats the loss, then it is the turn of the next."""

Side = Callable[[], tuple[float, np.ndarray]]
"""Value and gradient of the loss, when they are there."""


def logits(batch_size: int, num_classes: int) -> np.ndarray:
    """Those of student and teacher, [2, b, v]."""
    random = np.random.default_rng(0)
    return random.normal(0, 2, (2, batch_size, num_classes)).astype(np.float32)


def ours(student: np.ndarray, teacher: np.ndarray) -> Side:
    """Compiled for its shapes by the first call."""
    loss = SinKD(convention="faithful")
    compiled = jax.jit(jax.value_and_grad(lambda s, t: loss(s, t).mean()))
    on_device = jax.device_put((student, teacher))
    return lambda: jax.block_until_ready(compiled(*on_device))


def pytorch(student: np.ndarray, teacher: np.ndarray, *, compiled: bool) -> Side:
    """The authors' loss: tau 2, epsilon 0.1, 20 normalisations, times 0.001."""
    import torch

    def loss(student, teacher):
        p, q = torch.softmax(student / 2, -1), torch.softmax(teacher / 2, -1)
        cost = torch.cdist(p, q, p=1)
        plan = torch.exp(-cost / 0.1)
        for _ in range(20):
            plan = plan / plan.sum(1, keepdim=True)
            plan = plan / plan.sum(0, keepdim=True)
        return 0.001 * (plan * cost).sum()

    if compiled:
        torch._dynamo.reset()
        loss = torch.compile(loss, dynamic=False)
    s, t = torch.from_numpy(student).requires_grad_(), torch.from_numpy(teacher)

    def value_and_gradient():
        value = loss(s, t)
        (gradient,) = torch.autograd.grad(value, s)
        return value.detach(), gradient

    return value_and_gradient


def by_matrix(student: np.ndarray, teacher: np.ndarray) -> Side:
    """Ours with the matrix even for two classes: a third is ruled out."""
    ruled_out = np.full((len(student), 1), -np.inf, np.float32)
    side = ours(np.hstack([student, ruled_out]), np.hstack([teacher, ruled_out]))

    def value_and_gradient():
        value, gradient = side()
        return value, gradient[:, :-1]

    return value_and_gradient


SIDES: dict[str, Callable[[np.ndarray, np.ndarray], Side]] = {
    "ours": ours,
    "ours by matrix": by_matrix,
    "pytorch": lambda s, t: pytorch(s, t, compiled=False),
    "pytorch compiled": lambda s, t: pytorch(s, t, compiled=True),
}


def agreement(sides: dict[str, Side]) -> dict[str, dict[str, float]]:
    """How far every other side is from ours, relative to the largest entry.

    Raises:
        UserError: further than float32 explains.
    """
    found = {name: jax.tree.map(np.asarray, side()) for name, side in sides.items()}
    value, gradient = found.pop("ours")
    apart = {}
    for name, (other_value, other_gradient) in found.items():
        apart[name] = {
            "value": float(abs(value - other_value) / abs(other_value)),
            "gradient": float(
                np.abs(gradient - other_gradient).max() / np.abs(other_gradient).max()
            ),
        }
        if apart[name]["value"] > 1e-4 or apart[name]["gradient"] > 1e-2:
            raise UserError(f"ours and {name} disagree: {apart[name]}")
    return apart


def compare(batch_size: int, num_classes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """One batch size and number of classes, all sides: the race, and what was found."""
    student, teacher = logits(batch_size, num_classes)
    sides = {
        name: make(student, teacher)
        for name, make in SIDES.items()
        # Elsewhere it is what "ours" is.
        if name != "ours by matrix" or num_classes == 2
    }
    apart = agreement(sides)
    fastest = {
        name: min(measure.timed(side) for _ in range(3)) for name, side in sides.items()
    }
    race = measure.race(
        {name: lambda _, side=side: side() for name, side in sides.items()},
        [batch_size] * NUM_BLOCKS,
        title=f"B={batch_size}, V={num_classes}",
        repeats={n: max(1, round(BLOCK_SECONDS / s)) for n, s in fastest.items()},
    )
    floor = matrix_vector_seconds(batch_size)
    matrix = race["seconds"].get("ours by matrix", race["seconds"]["ours"])
    mine = statistics.median(matrix)
    return race, {
        "batch_size": batch_size,
        "num_classes": num_classes,
        "apart": apart,
        "matrix_vector_seconds": floor,
        # 4 products an iteration, there and back, as a share of all the time.
        "share_of_floor": 4 * 20 * floor / mine,
    }


def matrix_vector_seconds(batch_size: int) -> float:
    """Of one product with a [b, b] matrix.

    SinKD's definition needs 4 num_iters of them, forwards and backwards, each of
    which must read the matrix: the floor that memory sets.
    """
    matrix, vector = jnp.ones((batch_size, batch_size)), jnp.ones(batch_size)

    @jax.jit
    def twenty(matrix, vector):
        step = lambda v, _: ((matrix @ v) / batch_size, None)  # noqa: E731
        return jax.lax.scan(step, vector, length=20)[0]

    run = lambda: jax.block_until_ready(twenty(matrix, vector))  # noqa: E731
    run()
    return min(measure.timed(run) for _ in range(10)) / 20


def peak_bytes(name: str) -> int:
    """What one evaluation adds to a warm process at its peak, in its own process."""
    command = [sys.executable, "-m", "benchmarks.transport", "--memory-of", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def own_peak_bytes(name: str) -> int:
    """`peak_bytes` of this process."""
    return measure.added_at_peak(SIDES[name](*logits(*MEMORY_AT)))


def long_batch(batch_size: int) -> dict[str, Any]:
    """Ours alone."""
    side = ours(*logits(batch_size, 2))
    side()
    return measure.race(
        {"ours": lambda _: side()},
        [batch_size] * NUM_BLOCKS,
        title=f"B={batch_size}, V=2",
        repeats={"ours": 10},
    )


def benchmark() -> dict[str, Any]:
    """All comparisons, and peak memory."""
    import torch

    peaks = {name: peak_bytes(name) for name in SIDES}
    found = [compare(b, v) for v in NUM_CLASSES for b in BATCH_SIZES]
    races, details = zip(*found, strict=True)
    title = "SinKD, value and gradient, against the reference loss in PyTorch"
    if not os.environ.get("XLA_FLAGS"):
        title += ": JAX's compiler as it comes"
    return {
        "title": title,
        "aim": 8,
        "setting": {
            "data": "normal logits",
            "threads_of_pytorch": torch.get_num_threads(),
            "dispatch": "synchronous",
            "memory_at": dict(
                zip(("batch_size", "num_classes"), MEMORY_AT, strict=True)
            ),
        },
        "largest_differences": {
            race["title"]: detail["apart"]
            for race, detail in zip(races, details, strict=True)
        },
        "peak_bytes": peaks,
        "races": [*races, *map(long_batch, LONG_BATCHES)],
        "details": list(details),
    }


def main() -> int:
    """The command line; returns the exit status."""
    jax.config.update("jax_platforms", "cpu")  # as the other side
    # Computed where it is called, as there. Handing a loss to another thread takes
    # 0.03 ms, which nobody pays inside a compiled training step.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    parser = measure.parser("transport", __doc__)
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(own_peak_bytes(arguments.memory_of))
        return 0
    return measure.write_result(arguments.output, benchmark)


if __name__ == "__main__":
    sys.exit(main())
