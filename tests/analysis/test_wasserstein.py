"""The distance of two samples against all pairings, the line, and other solvers."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from kd.analysis.wasserstein import wasserstein
from kd.transport.ott_solvers import Converged
from kd.transport.ott_solvers import solve as solve_by_ott
from kd.transport.rounding import round_to_feasible
from kd.transport.solver import solve


def samples(n, d, seed=0, shift=0.5):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, d)), random.normal(shift, 1.3, size=(n, d))


def test_is_the_least_of_all_pairings():
    x, y = samples(6, 3)
    costs = [
        np.linalg.norm(x - y[[*order]], axis=1).mean()
        for order in itertools.permutations(range(6))
    ]
    np.testing.assert_allclose(wasserstein(x, y), min(costs), rtol=1e-12)
    assert wasserstein(x, y) < sorted(costs)[1]


def test_on_a_line_the_order_is_kept():
    x, y = samples(300, 1)
    expected = stats.wasserstein_distance(x[:, 0], y[:, 0])
    np.testing.assert_allclose(wasserstein(x, y), expected, rtol=1e-9)


def test_is_a_distance():
    x, y = samples(40, 5)
    z, _ = samples(40, 5, seed=1)
    assert wasserstein(x, x[::-1]) < 1e-6
    np.testing.assert_allclose(wasserstein(x, y), wasserstein(y, x))
    assert wasserstein(x, y) <= wasserstein(x, z) + wasserstein(z, y)
    # All moved alike, which no other pairing makes cheaper; far from the origin too.
    moved = x + 1e6 + np.array([3.0, 4.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(wasserstein(x + 1e6, moved), 5.0, rtol=1e-9)
    np.testing.assert_allclose(
        wasserstein(x.astype(np.float32), y.astype(np.float32)), wasserstein(x, y),
        rtol=1e-5,
    )  # fmt: skip


@pytest.mark.slow
def test_the_entropic_solvers_tend_to_it_from_above():
    x, y = samples(32, 4)
    cost = jnp.linalg.norm(x[:, None] - y[None], axis=-1)
    masses = jnp.full(32, 1 / 32)
    exact = wasserstein(x, y)
    plans = [
        solve(cost, masses, masses, epsilon=epsilon, num_iters=2000).plan
        for epsilon in (0.3, 0.03)
    ]
    plans.append(
        solve_by_ott(
            Converged(threshold=1e-4, max_iters=5000),
            cost,
            masses,
            masses,
            epsilon=0.03,
        ).matrix
    )
    blurred, sharp, by_ott = (
        float(jnp.sum(cost * round_to_feasible(plan, masses, masses))) for plan in plans
    )
    assert exact - 1e-5 <= sharp < blurred
    np.testing.assert_allclose([sharp, by_ott], exact, rtol=0.02)


@pytest.mark.parametrize(("n", "m"), [(3, 4), (0, 0)])
def test_bad_samples(n, m):
    with pytest.raises(ValueError, match="expected as many vectors of one width, got"):
        wasserstein(np.zeros((n, 2)), np.zeros((m, 2)))
