"""Unregularised transport on a line against SciPy and the entropic limit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from kd.transport import line, line_exact

exact_row_costs = jax.jit(line_exact.exact_row_costs, static_argnames="scale")


def problem(n, m, decimals=12):
    random = np.random.default_rng(n)
    a, b = random.random(n), random.random(m)
    a[1::4] = 0  # rows without mass
    x, y = random.random(n).round(decimals), random.random(m).round(decimals)
    x[a == 0] = np.nan
    return x, y, a / a.sum(), b / b.sum()


@pytest.mark.parametrize("decimals", [12, 1])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (2, 2), (33, 20), (300, 300)])
def test_total_is_the_wasserstein_distance(n, m, decimals, x64):
    x, y, a, b = problem(n, m, decimals)
    costs = exact_row_costs(*map(jnp.asarray, (x, y, a, b)), scale=3.0)
    distance = scipy.stats.wasserstein_distance(x[a > 0], y, a[a > 0], b)
    np.testing.assert_allclose(costs.sum(), 3 * distance, rtol=1e-12, atol=1e-14)
    assert np.all(costs >= 0) and not costs[a == 0].any()


@pytest.mark.slow
def test_is_the_limit_of_the_entropic_cost(x64):
    x, y, a, b = map(jnp.asarray, problem(12, 9))
    exact = exact_row_costs(x, y, a, b)
    errors = []
    for epsilon in (1e-1, 1e-2, 1e-3):
        solve = functools.partial(line.solve, epsilon=epsilon, num_iters=3000)
        costs = jax.jit(solve)(x, y, a, b).costs
        errors.append(np.abs(costs.sum() - exact.sum()))
    assert errors[2] < 0.2 * errors[1] < 0.04 * errors[0]
    assert errors[2] < 2e-4


def test_gradient_is_that_of_finite_differences(x64):
    x, y, a, b = map(jnp.asarray, problem(9, 6))
    weights = jnp.linspace(0.5, 1.5, 9)

    @jax.jit
    def total(points):
        return weights @ exact_row_costs(points[:9], points[9:], a, b)

    points = jnp.concatenate([x, y])
    gradient = jax.grad(total)(points)
    for i, step in enumerate(1e-6 * np.eye(len(points))):
        difference = (total(points + step) - total(points - step)) / 2e-6
        np.testing.assert_allclose(gradient[i], difference, atol=1e-8)


def test_equal_inputs_cost_nothing_and_pull_nowhere():
    x, _, a, _ = map(jnp.float32, problem(33, 1))
    value, gradient = jax.value_and_grad(
        lambda points: exact_row_costs(points, x, a, a).sum()
    )(x)
    assert value == 0 and not gradient.any()


def test_totals_that_differ_by_rounding():
    x, y, a, b = problem(3000, 2000)
    costs = exact_row_costs(*map(jnp.float32, (x, y, a, b)))
    expected = 2 * scipy.stats.wasserstein_distance(x[a > 0], y, a[a > 0], b)
    np.testing.assert_allclose(costs.sum(), expected, rtol=1e-4)
    assert not costs[a == 0].any()
