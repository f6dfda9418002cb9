"""Closed forms against Monte Carlo, within its own error, and what they must bound."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from kd.analysis.linear_gaussian import LinearGaussian

STANDARD_ERRORS = 4.0


def problem(seed=0, num_examples=12, widths=(5, 3, 3, 2), scale=0.7):
    random = np.random.default_rng(seed)
    inputs = 6
    weights = []
    for width in widths:
        weights.append(scale * random.normal(size=(width, inputs)))
        inputs = width
    return LinearGaussian(
        mean=random.normal(size=6),
        deviation=0.8,
        num_examples=num_examples,
        weights=tuple(weights),
    )


def averages(setting, random, num):
    """Of so many training sets, their examples turned by their labels."""
    n = setting.num_examples
    noise = random.normal(size=(num, n, len(setting.mean)))
    turned = setting.mean + setting.deviation * noise
    return turned, turned.mean(axis=1)


def assert_mean(samples, expected):
    """The mean of independent samples is as expected, within their standard errors."""
    error = np.std(samples, axis=0) / np.sqrt(len(samples))
    assert np.all(np.abs(np.mean(samples, axis=0) - expected) < STANDARD_ERRORS * error)
    # The test could tell a formula that is off by a tenth.
    assert np.all(STANDARD_ERRORS * error < 0.1 * np.abs(expected))


def test_a_training_example_given_the_average():
    """Its mean and covariance, seen in whole training sets."""
    setting, random = problem(num_examples=5), np.random.default_rng(1)
    turned, average = averages(setting, random, 40_000)
    rest = (turned[:, 0] - average) @ setting.maps[2].T
    covariance = setting.deviation**2 * setting.maps[2] @ setting.maps[2].T
    found = rest.T @ rest / len(rest)
    np.testing.assert_allclose(found, (1 - 1 / 5) * covariance, rtol=0.05, atol=0.03)
    seen = (average - setting.mean) @ setting.maps[2].T
    np.testing.assert_allclose(rest.T @ seen / len(rest), 0, atol=0.03)


def test_kl_is_the_mean_of_the_log_ratio():
    setting, random = problem(num_examples=4), np.random.default_rng(2)
    average = setting.mean + 0.3 * random.normal(size=6)
    for layer, a in enumerate(setting.maps):
        covariance = setting.deviation**2 * a @ a.T
        train = stats.multivariate_normal(a @ average, 0.75 * covariance)
        test = stats.multivariate_normal(a @ setting.mean, covariance)
        seen = train.rvs(size=60_000, random_state=random)
        ratios = train.logpdf(seen) - test.logpdf(seen)
        assert_mean(ratios, setting.kl(average)[layer])


def test_squared_wasserstein_is_the_cost_of_the_optimal_map():
    setting, random = problem(num_examples=4), np.random.default_rng(3)
    average = setting.mean + 0.5 * random.normal(size=6)
    for layer, a in enumerate(setting.maps):
        noise = setting.deviation * random.normal(size=(60_000, 6)) @ a.T
        seen = a @ average + np.sqrt(0.75) * noise
        # The gradient of a convex function, so no other map is cheaper.
        costs = np.square(seen - (a @ setting.mean + noise)).sum(axis=1)
        assert_mean(costs, setting.squared_wasserstein(average)[layer])


def test_squared_wasserstein_on_a_line():
    setting = problem(num_examples=3, widths=(4, 1))
    average = setting.mean + 0.2
    ranks = (np.arange(200_000) + 0.5) / 200_000
    a = setting.maps[-1]
    deviation = setting.deviation * np.linalg.norm(a)
    train, test = (
        stats.norm.ppf(ranks, (a @ centre).item(), scale * deviation)
        for centre, scale in ((average, np.sqrt(2 / 3)), (setting.mean, 1.0))
    )
    squared = setting.squared_wasserstein(average)[-1]
    np.testing.assert_allclose(np.square(train - test).mean(), squared, rtol=1e-3)
    assert np.abs(train - test).mean() < np.sqrt(squared)


@pytest.mark.slow
def test_expectations_over_averages():
    setting, random = problem(), np.random.default_rng(4)
    _, found = averages(setting, random, 20_000)
    assert_mean([setting.kl(a) for a in found], setting.expected_kl)
    squares = [setting.squared_wasserstein(a) for a in found]
    assert_mean(squares, setting.expected_squared_wasserstein)


def test_divergence_falls_with_depth_and_rank():
    setting = problem()
    assert list(setting.ranks) == [6, 5, 3, 3, 2]
    expected = setting.ranks / 2 * np.log(12 / 11)
    np.testing.assert_allclose(setting.expected_kl, expected)
    random = np.random.default_rng(5)
    for average in setting.mean + random.normal(size=(50, 6)):
        # The last layer may be made from the examples.
        head = (setting.maps[-2] @ average)[None]
        learned = dataclasses.replace(setting, weights=(*setting.weights[:-1], head))
        for network in (setting, learned):
            assert np.all(np.diff(network.kl(average)) <= 1e-12)


def test_wide_and_deficient_maps():
    """A map that loses a dimension on the way has the rank that is left."""
    setting = problem()
    flat = np.zeros((6, 6))
    flat[0, 0] = 2.0
    wide = dataclasses.replace(setting, weights=(flat, np.ones((9, 6))))
    assert list(wide.ranks) == [6, 1, 1]
    np.testing.assert_allclose(
        wide.kl(setting.mean + 1)[1], wide.kl(setting.mean + 1)[2]
    )


def ramp(outputs, labels):
    """In [0, 1], and no steeper than 1/2 in the output."""
    return np.clip((1 - outputs * labels) / 2, 0, 1)


@pytest.mark.parametrize("num_examples", [2, 5, 20])
def test_the_bounds_hold_for_a_classifier_that_learns(num_examples):
    """The gap of the classifier along the class average of its last hidden layer."""
    setting = problem(num_examples=num_examples, widths=(4, 2))
    random = np.random.default_rng(6)
    turned, average = averages(setting, random, 4000)
    fresh = setting.mean + setting.deviation * random.normal(size=turned.shape)
    hidden = setting.maps[-1]
    heads = average @ hidden.T
    heads /= np.linalg.norm(heads, axis=1, keepdims=True)
    # Turned by its label, an example's output times its label is linear in it.
    ours, theirs = (
        np.einsum("sk,snk->sn", heads, x @ hidden.T) for x in (turned, fresh)
    )
    gaps = (ramp(theirs, 1) - ramp(ours, 1)).mean(axis=1)
    gap, error = gaps.mean(), gaps.std() / np.sqrt(len(gaps))
    assert gap > STANDARD_ERRORS * error
    # Heads have norm 1, so the tails of the hidden layers are those without one.
    assert np.all(gap < setting.kl_bounds(0.5) + STANDARD_ERRORS * error)
    # The loss falls from 1 to 0 between labels that are 2 apart.
    assert np.all(gap < setting.wasserstein_bounds(0.5) + STANDARD_ERRORS * error)


def test_the_funnel_is_where_narrowing_and_gain_balance():
    narrow = np.zeros((1, 6))
    narrow[0, 0] = 1.0
    quiet = dataclasses.replace(problem(), weights=(np.eye(6), narrow))
    assert quiet.funnel == 2
    # What follows the narrow layer multiplies whatever differs there.
    loud = dataclasses.replace(
        problem(), weights=(0.1 * np.eye(6), narrow, np.array([[30.0]]))
    )
    np.testing.assert_allclose(loud.tails, [3.0, 30.0, 30.0, 1.0])
    assert loud.funnel in (2, 3)
    bounds = loud.wasserstein_bounds(1.0)
    np.testing.assert_allclose(bounds[2], bounds[3])
    assert bounds[2] < bounds[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deviation": 0.0}, "deviation must be positive, got 0.0"),
        ({"num_examples": 1}, "num_examples must be at least 2, got 1"),
        ({"weights": (np.eye(6), np.eye(5))}, "W_2 takes 5 inputs, and layer 1 has 6"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(problem(), **changes)
