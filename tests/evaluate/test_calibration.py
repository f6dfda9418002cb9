from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

from kd.evaluate.calibration import (
    brier_score,
    negative_log_likelihood,
    reliability,
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
