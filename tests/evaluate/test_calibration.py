from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

from kd.evaluate.calibration import (
    brier_score,
    equal_mass_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
    squared_calibration_error,
)

INF = float("inf")

# Without the type checker's stubs, which are older than scikit-learn.
metrics: Any = sklearn.metrics
calibration_curve: Any = sklearn.calibration.calibration_curve


def predictions(num_classes: int, num_examples: int = 500):
    draws = np.random.default_rng(num_classes)
    labels = draws.integers(num_classes, size=num_examples)
    logits = 2 * draws.normal(size=(num_examples, num_classes))
    logits[np.arange(num_examples), labels] += 1
    return logits, labels


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_equal_scikit_learn(num_classes):
    logits, labels = predictions(num_classes)
    probs = softmax(logits)
    assert negative_log_likelihood(logits, labels) == pytest.approx(
        metrics.log_loss(labels, probs), rel=1e-12
    )
    assert brier_score(logits, labels) == pytest.approx(
        metrics.brier_score_loss(labels, probs, scale_by_half=False), rel=1e-12
    )
    found = reliability(logits, labels, num_bins=10)
    accuracy, confidence = calibration_curve(
        probs.argmax(axis=1) == labels, probs.max(axis=1), n_bins=10
    )
    filled = found.count > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence)


def test_expected_calibration_error_by_hand():
    # Two predictions in (0.6, 0.8], one of them right; one in (0.8, 1], right.
    probs = np.array([[0.7, 0.3], [0.25, 0.75], [0.1, 0.9]])
    found = reliability(np.log(probs), np.array([0, 0, 1]), num_bins=5)
    np.testing.assert_allclose(found.edges, [0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_array_equal(found.count, [0, 0, 0, 2, 1])
    np.testing.assert_allclose(found.confidence, [np.nan, np.nan, np.nan, 0.725, 0.9])
    np.testing.assert_allclose(found.accuracy, [np.nan, np.nan, np.nan, 0.5, 1])
    assert found.expected_calibration_error == pytest.approx(
        (2 * abs(0.5 - 0.725) + 1 * abs(1 - 0.9)) / 3
    )


def test_bins_of_equal_mass_by_hand():
    # Confidences 0.55, 0.6 | 0.7, 0.8 | 0.95; right, wrong | right, right | wrong.
    confidence = np.array([0.95, 0.55, 0.8, 0.6, 0.7])
    right = np.array([False, True, True, False, True])
    logits = np.log(np.stack([confidence, 1 - confidence], axis=1))
    labels = np.where(right, 0, 1)
    found = reliability(logits, labels, num_bins=3, equal_mass=True)
    np.testing.assert_allclose(found.edges, [0, 0.65, 0.875, 1])
    np.testing.assert_array_equal(found.count, [2, 2, 1])
    np.testing.assert_allclose(found.confidence, [0.575, 0.75, 0.95])
    np.testing.assert_allclose(found.accuracy, [0.5, 1, 0])
    assert found.expected_calibration_error == pytest.approx(
        (2 * 0.075 + 2 * 0.25 + 0.95) / 5
    )
    # The bin of one example says nothing of its own noise.
    assert found.debiased_squared_error == pytest.approx(
        (2 * (0.075**2 - 0.5 * 0.5 / 1) + 2 * (0.25**2 - 0)) / 5
    )


def test_equal_confidences_share_a_bin():
    logits, labels = np.zeros((10, 2)), np.arange(10) % 2
    found = reliability(logits, labels, num_bins=5, equal_mass=True)
    assert found.count.sum() == found.count.max() == 10
    assert found.expected_calibration_error == 0
    # As all binary predictions of one logit: the order of examples plays no part.
    logits, labels = predictions(2)
    logits = np.round(logits)
    order = np.random.default_rng(0).permutation(len(labels))
    for score in (equal_mass_calibration_error, squared_calibration_error):
        assert score(logits, labels) == pytest.approx(
            score(logits[order], labels[order])
        )


def test_bins_of_equal_mass_are_of_equal_mass():
    logits, labels = predictions(5, num_examples=1003)
    count = reliability(logits, labels, equal_mass=True).count
    assert len(count) == 15 and set(count) <= {66, 67}
    # More bins than examples: one for each.
    few = reliability(logits[:4], labels[:4], equal_mass=True)
    np.testing.assert_array_equal(few.count, 1)
    assert few.debiased_squared_error == 0


def simulated(num_classes: int, num_examples: int, temperature: float, runs: int):
    """Labels drawn from the probabilities of a model, sharpened afterwards."""
    for seed in range(runs):
        random = np.random.default_rng(seed)
        logits = 1.5 * random.normal(size=(num_examples, num_classes))
        noise = random.gumbel(size=logits.shape)
        yield logits / temperature, (logits + noise).argmax(axis=1)


@pytest.mark.parametrize("num_classes", [2, 10])
def test_a_calibrated_model_has_no_debiased_error_and_some_ece(num_classes):
    draws = [*simulated(num_classes, 300, temperature=1.0, runs=400)]
    squared = np.array([squared_calibration_error(*draw) for draw in draws])
    plain = [
        np.mean([error(*draw) for draw in draws])
        for error in (expected_calibration_error, equal_mass_calibration_error)
    ]
    biased = np.array([
        np.average(np.square(found.accuracy - found.confidence), weights=found.count)
        for found in (reliability(*draw, equal_mass=True) for draw in draws)
    ])  # fmt: skip
    error_of_mean = squared.std() / np.sqrt(len(squared))
    assert abs(squared.mean()) < 4 * error_of_mean
    assert squared.min() < 0 < squared.max()
    assert biased.mean() > 50 * error_of_mean
    assert min(plain) > 0.04


def test_the_debiased_error_of_an_uncalibrated_model_is_the_true_one():
    # In bins of many examples there is hardly anything to debias.
    few = [*simulated(3, 300, temperature=0.4, runs=300)]
    ((logits, labels),) = simulated(3, 200_000, temperature=0.4, runs=1)
    true = reliability(logits, labels, equal_mass=True).debiased_squared_error
    found = np.array([squared_calibration_error(*draw) for draw in few])
    assert true > 0.02
    assert abs(found.mean() - true) < 5 * found.std() / np.sqrt(300)


def test_confidence_on_an_edge_is_in_the_bin_below():
    found = reliability(np.zeros((1, 2)), np.array([0]), num_bins=4)
    np.testing.assert_array_equal(found.count, [0, 1, 0, 0])


@pytest.mark.parametrize("logit", [1e4, INF])
def test_sure_and_right(logit):
    logits = np.array([[0.0, -logit], [-logit, 0.0]])
    labels = np.array([0, 1])
    found = reliability(logits, labels)
    assert found.count[-1] == 2
    assert found.expected_calibration_error == 0
    assert brier_score(logits, labels) == 0
    assert negative_log_likelihood(logits, labels) == 0


def test_sure_and_wrong():
    logits, labels = np.array([[0.0, -1e4], [-1e4, 0.0]]), np.array([1, 0])
    assert reliability(logits, labels).expected_calibration_error == 1
    assert brier_score(logits, labels) == 2
    assert negative_log_likelihood(logits, labels) == 1e4
    assert negative_log_likelihood(np.array([[0.0, -INF]]), np.array([1])) == INF


def test_one_example_and_one_bin():
    logits, labels = np.log([[0.25, 0.75]]), np.array([1])
    found = reliability(logits, labels, num_bins=1)
    assert found.expected_calibration_error == pytest.approx(0.25)
    assert brier_score(logits, labels) == pytest.approx(2 * 0.25**2)
    assert negative_log_likelihood(logits, labels) == pytest.approx(-np.log(0.75))


def test_padding_of_the_vocabulary_changes_nothing():
    logits, labels = predictions(3)
    padded = np.pad(logits, ((0, 0), (0, 2)), constant_values=-INF)
    for score in (brier_score, negative_log_likelihood):
        assert score(padded, labels) == pytest.approx(score(logits, labels), rel=1e-12)


def test_computes_in_float64():
    # In bfloat16 the mean over 1000 examples would be off by percents.
    logits, labels = predictions(3, num_examples=1000)
    short = np.asarray(jnp.asarray(logits, jnp.bfloat16))
    exact = short.astype(np.float64)
    for score in (brier_score, negative_log_likelihood):
        assert score(short, labels) == score(exact, labels)


def test_too_few_bins_are_refused():
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        reliability(np.zeros((1, 2)), np.array([0]), num_bins=0)
