"""The Gibbs algorithm against every sample one by one, and its rate."""

import itertools

import numpy as np
import pytest

from kd.analysis.gibbs import gibbs

LOSSES = np.array([[0.0, 0.9, 0.4], [0.7, 0.1, 0.5], [1.0, 0.6, 0.0], [0.3, 0.3, 0.3]])
CHANCES = np.array([0.5, 0.3, 0.2])


def sample_by_sample(num_examples, beta, prior):
    """gap, I and L from all 3^n ordered samples."""
    joint, training = [], []
    for sample in itertools.product(range(3), repeat=num_examples):
        mean = LOSSES[:, sample].mean(axis=1)
        weights = prior * np.exp(-beta * mean)
        joint.append(np.prod(CHANCES[list(sample)]) * weights / weights.sum())
        training.append(mean)
    joint, training = np.array(joint), np.array(training)
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    gap = np.sum(joint.sum(axis=0) * (LOSSES @ CHANCES)) - np.sum(joint * training)
    log_ratio = np.log(joint / product)
    return gap, np.sum(joint * log_ratio), np.sum(product * -log_ratio)


@pytest.mark.parametrize("num_examples", [1, 2, 5])
@pytest.mark.parametrize("beta", [0.5, 3.0, 20.0])
def test_counts_are_all_samples(num_examples, beta):
    prior = np.array([0.4, 0.3, 0.2, 0.1])
    found = gibbs(
        LOSSES,
        CHANCES,
        num_examples=num_examples,
        inverse_temperature=beta,
        prior=prior,
    )
    gap, mutual, lautum = sample_by_sample(num_examples, beta, prior)
    np.testing.assert_allclose(found.gap, gap, rtol=1e-9)
    np.testing.assert_allclose(found.mutual_information, mutual, rtol=1e-9)
    np.testing.assert_allclose(found.lautum_information, lautum, rtol=1e-9)


@pytest.mark.parametrize("beta", [0.3, 2.0, 10.0])
@pytest.mark.parametrize("num_examples", [1, 3, 12, 48])
def test_the_gap_is_the_symmetrized_information_and_below_the_bound(num_examples, beta):
    found = gibbs(LOSSES, CHANCES, num_examples=num_examples, inverse_temperature=beta)
    both = found.mutual_information + found.lautum_information
    np.testing.assert_allclose(found.gap, both / beta, rtol=1e-9)
    assert 0 < found.gap <= found.bound
    np.testing.assert_allclose(found.bound, beta / (2 * num_examples))


def test_the_rate_is_one_over_n():
    gaps = {
        n: gibbs(LOSSES, CHANCES, num_examples=n, inverse_temperature=2.0).gap
        for n in (8, 16, 32, 64, 128)
    }
    slopes = [np.log2(gaps[n] / gaps[2 * n]) for n in (8, 16, 32, 64)]
    np.testing.assert_allclose(slopes, 1, atol=0.05)
    assert abs(slopes[-1] - 1) < abs(slopes[0] - 1)  # not that of 1 / sqrt(n)


def test_equal_losses_leave_nothing_to_learn():
    found = gibbs(
        np.full((3, 2), 0.5), np.array([0.5, 0.5]), num_examples=4,
        inverse_temperature=5.0,
    )  # fmt: skip
    assert abs(found.gap) < 1e-12 and found.bound == 0
    assert abs(found.mutual_information) < 1e-12
    np.testing.assert_allclose(found.training_loss, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_examples": 0}, "num_examples must be at least 1, got 0"),
        ({"inverse_temperature": 0.0}, "inverse_temperature must be positive, got 0.0"),
        ({"probabilities": np.array([0.5, 0.3, 0.3])}, "must be positive and sum to 1"),
        ({"prior": np.array([1.0, 0.0, 0.0, 0.0])}, "prior must be positive and sum"),
    ],
)
def test_bad_settings(changes, message):
    settings = {"probabilities": CHANCES, "num_examples": 2, "inverse_temperature": 1.0}
    with pytest.raises(ValueError, match=message):
        gibbs(LOSSES, **(settings | changes))
