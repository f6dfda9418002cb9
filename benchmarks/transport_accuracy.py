"""Accuracy against time of Sinkhorn solvers: ours, OTT's, POT's and geomloss's.

The entropic cost of moving a batch of predictions onto another, L1 cost, epsilon 0.1,
all masses equal, from the predictions to the number; how far it is from the converged
one in double precision, and how long it took, for a growing number of iterations.

    python -m benchmarks.transport_accuracy
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from kd.transport import line, solver
from kd.transport.cost import L1

EPSILON = 0.1
BATCH_SIZE = 512
NUM_CLASSES = (2, 10, 1000)
ITERATIONS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SCALINGS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""What geomloss has instead of iterations: the ratio of successive epsilons."""
NUM_BLOCKS = 9

Side = Callable[[], Any]
"""The entropic cost."""


def predictions(num_classes: int) -> np.ndarray:
    """Those of student and teacher, [2, b, v]."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (2, BATCH_SIZE, num_classes))
    return np.asarray(jax.nn.softmax(logits / 2), np.float32)


def converged(p: np.ndarray, q: np.ndarray) -> float:
    """In double precision, until nothing moves."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    cost = np.zeros((len(p), len(q)))
    for x, y in zip(p.T, q.T, strict=True):
        cost += np.abs(x[:, None] - y)
    kernel, mass = np.exp(-cost / EPSILON), 1 / len(p)
    u, v, before = np.ones(len(p)), np.ones(len(q)), np.inf
    while True:
        u = mass / (kernel @ v)
        v = mass / (kernel.T @ u)
        value = EPSILON * mass * (np.log(u / mass).sum() + np.log(v / mass).sum())
        if abs(value - before) < 1e-14:
            return float(value)
        before = value


def _of_potentials(solution, mass):
    """sum_i a_i f_i + sum_j b_j g_j, for potentials relative to a b^T."""
    constant = 2 * EPSILON * jnp.log(mass)
    return mass * (solution.f.sum() + solution.g.sum()) - constant


def ours(p: np.ndarray, q: np.ndarray, num_iters: int) -> Side:
    """By matrices."""
    mass = jnp.full(len(p), 1 / len(p))

    @jax.jit
    def value(p, q):
        solution = solver.solve(
            L1()(p, q), mass, mass,
            epsilon=EPSILON, num_iters=num_iters, largest_cost=2.0,
        )  # fmt: skip
        return _of_potentials(solution, mass[0])

    p, q = jax.device_put((p, q))
    return lambda: jax.block_until_ready(value(p, q))


def ours_on_line(p: np.ndarray, q: np.ndarray, num_iters: int) -> Side:
    """For two classes."""
    mass = jnp.full(len(p), 1 / len(p))

    @jax.jit
    def value(p, q):
        solution = line.solve(
            p[:, 0], q[:, 0], mass, mass,
            epsilon=EPSILON, num_iters=num_iters, largest_cost=2.0,
        )  # fmt: skip
        return _of_potentials(solution, mass[0])

    p, q = jax.device_put((p, q))
    return lambda: jax.block_until_ready(value(p, q))


def ott(p: np.ndarray, q: np.ndarray, num_iters: int, *, lse_mode: bool) -> Side:
    """Tuned: one block, no tests of convergence, our cost matrix."""
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    solve = Sinkhorn(
        lse_mode=lse_mode, threshold=-1.0, min_iterations=0,
        inner_iterations=num_iters, max_iterations=num_iters,
    )  # fmt: skip

    @jax.jit
    def value(p, q):
        geometry = Geometry(L1()(p, q), epsilon=EPSILON)
        return solve(LinearProblem(geometry)).reg_ot_cost

    p, q = jax.device_put((p, q))
    return lambda: jax.block_until_ready(value(p, q))


def pot(p: np.ndarray, q: np.ndarray, num_iters: int) -> Side:
    """On PyTorch's tensors, never converged enough to stop early."""
    import ot
    import torch

    p, q = torch.tensor(p), torch.tensor(q)
    mass = torch.full((len(p),), 1 / len(p))

    def value():
        cost = torch.cdist(p, q, p=1)
        _, log = ot.sinkhorn(
            mass, mass, cost, EPSILON, numItermax=num_iters, stopThr=0, log=True,
            warn=False,
        )  # fmt: skip
        logs = torch.log(log["u"] / mass).sum() + torch.log(log["v"] / mass).sum()
        return EPSILON * mass[0] * logs

    return value


def geomloss(p: np.ndarray, q: np.ndarray, scaling: float) -> Side:
    """Annealing epsilon from the diameter of the cost, 2."""
    import torch
    from geomloss import SamplesLoss

    p, q = torch.tensor(p), torch.tensor(q)
    loss = SamplesLoss(
        "sinkhorn", p=1, blur=EPSILON, diameter=2.0, scaling=scaling, debias=False,
        cost=lambda x, y: torch.cdist(x, y, p=1), backend="tensorized",
    )  # fmt: skip
    return lambda: loss(p, q)


def contenders(p: np.ndarray, q: np.ndarray) -> dict[tuple[str, float], Side]:
    """By name of the solver and its setting."""
    made: dict[tuple[str, float], Side] = {}
    for num_iters in ITERATIONS:
        made["ours", num_iters] = ours(p, q, num_iters)
        if p.shape[1] == 2:
            made["ours on the line", num_iters] = ours_on_line(p, q, num_iters)
        made["OTT, scalings", num_iters] = ott(p, q, num_iters, lse_mode=False)
        made["OTT, logarithms", num_iters] = ott(p, q, num_iters, lse_mode=True)
        made["POT", num_iters] = pot(p, q, num_iters)
    for scaling in SCALINGS:
        made["geomloss", scaling] = geomloss(p, q, scaling)
    return made


def curves(num_classes: int) -> dict[str, Any]:
    """Error and seconds of every solver at every setting."""
    p, q = predictions(num_classes)
    expected = converged(p, q)
    sides = contenders(p, q)
    errors = {key: abs(float(side()) - expected) for key, side in sides.items()}
    best = min(error for (name, _), error in errors.items() if name.startswith("ours"))
    assert best < 1e-5, "ours does not converge to the definition"
    race = measure.race(
        {str(key): lambda _, side=side: side() for key, side in sides.items()},
        [BATCH_SIZE] * NUM_BLOCKS,
        title=f"B={BATCH_SIZE}, V={num_classes}",
    )
    return {
        "batch_size": BATCH_SIZE,
        "num_classes": num_classes,
        "converged": expected,
        "points": [
            {
                "solver": name,
                "setting": setting,
                "error": errors[name, setting],
                "seconds": race["seconds"][str((name, setting))],
            }
            for name, setting in sides
        ],
    }


def benchmark() -> dict[str, Any]:
    """All curves."""
    return {
        "title": "Accuracy of the entropic cost against time",
        "setting": {"epsilon": EPSILON},
        "curves": [curves(num_classes) for num_classes in NUM_CLASSES],
    }


def main() -> int:
    """The command line; returns the exit status."""
    jax.config.update("jax_platforms", "cpu")  # as the other sides
    options = measure.parser("transport_accuracy", __doc__).parse_args()
    return measure.write_result(options.output, benchmark)


if __name__ == "__main__":
    sys.exit(main())
