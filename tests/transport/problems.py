"""Transport problems and slow definitions that several of these tests share."""

from typing import NamedTuple

import numpy as np

from kd.transport.cost import L1, Cosine, Minkowski, SquaredL2

COSTS = {
    L1(): lambda x, y: np.abs(x - y).sum(axis=-1),
    Minkowski(2.5): lambda x, y: (np.abs(x - y) ** 2.5).sum(axis=-1) ** 0.4,
    SquaredL2(): lambda x, y: ((x - y) ** 2).sum(axis=-1),
    Cosine(): lambda x, y: (
        1
        - (x * y).sum(axis=-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    ),
}
"""Every cost and its definition, between points that broadcast."""


class Problem(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    row_mass: np.ndarray
    column_mass: np.ndarray


def problem(masses: str, seed: int = 0) -> Problem:
    """Probabilities of 5 and 6 examples over 4 classes, in float64.

    Args:
        masses: "equal", "weighted", or "masked" for some without any.
        seed: of the randomness.
    """
    random = np.random.default_rng(seed)
    row_mass, column_mass = {
        "equal": ([1.0] * 5, [1.0] * 6),
        "weighted": ([1, 2, 3, 4, 5], [6, 5, 4, 3, 2, 1]),
        "masked": ([1, 0, 1, 3, 0], [0, 1, 1, 0, 2, 1]),
    }[masses]
    return Problem(
        random.dirichlet(np.ones(4), 5),
        random.dirichlet(np.ones(4), 6),
        np.array(row_mass) / sum(row_mass),
        np.array(column_mass) / sum(column_mass),
    )


def definition(cost, row_mass, column_mass, *, epsilon, num_iters):
    """Rows, then columns of exp(-cost / epsilon) scaled to their masses, in turn."""
    rows, columns = row_mass > 0, column_mass > 0
    kernel = np.exp(-cost[np.ix_(rows, columns)] / epsilon)
    for _ in range(num_iters):
        kernel = kernel * (row_mass[rows] / kernel.sum(axis=1))[:, None]
        kernel = kernel * (column_mass[columns] / kernel.sum(axis=0))[None, :]
    plan = np.zeros_like(cost)
    plan[np.ix_(rows, columns)] = kernel
    return plan


def entropic_cost(plan, cost, row_mass, column_mass, *, epsilon):
    """<P, C> + epsilon KL(P | row_mass column_mass^T)."""
    outer = row_mass[:, None] * column_mass[None, :]
    inside = plan > 0
    relative = plan[inside] * np.log(plan[inside] / outer[inside])
    return (plan * cost).sum() + epsilon * relative.sum()
