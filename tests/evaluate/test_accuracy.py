from typing import Any

import numpy as np
import pytest
import sklearn.metrics

from kd.evaluate.accuracy import accuracy, f1, matthews_correlation

# Without the type checker's stubs, which are older than scikit-learn.
metrics: Any = sklearn.metrics


def predictions(num_classes: int, num_examples: int = 200):
    draws = np.random.default_rng(num_classes)
    labels = draws.integers(num_classes, size=num_examples)
    logits = draws.normal(size=(num_examples, num_classes))
    logits[np.arange(num_examples), labels] += 0.7
    return logits, labels


@pytest.mark.parametrize("num_classes", [2, 5])
def test_equal_scikit_learn(num_classes):
    logits, labels = predictions(num_classes)
    classes = logits.argmax(axis=1)
    assert accuracy(logits, labels) == metrics.accuracy_score(labels, classes)
    assert matthews_correlation(logits, labels) == pytest.approx(
        metrics.matthews_corrcoef(labels, classes), abs=1e-12
    )
    for positive in range(num_classes):
        assert f1(logits, labels, positive=positive) == pytest.approx(
            metrics.f1_score(labels == positive, classes == positive), abs=1e-12
        )


def test_right_and_wrong():
    logits, labels = np.eye(2)[[0, 1, 1, 0]], np.array([0, 1, 1, 0])
    for score in (accuracy, f1, matthews_correlation):
        assert score(logits, labels) == 1
    wrong = 1 - labels
    assert accuracy(logits, wrong) == 0
    assert f1(logits, wrong) == 0
    assert matthews_correlation(logits, wrong) == -1


def test_ties_go_to_the_first_class():
    assert accuracy(np.zeros((3, 2)), np.array([0, 0, 1])) == pytest.approx(2 / 3)


def test_one_example():
    assert accuracy(np.array([[0.0, 1.0]]), np.array([1])) == 1


def test_undefined_scores_are_zero():
    always_0, labels = np.array([[1.0, 0.0]] * 3), np.array([0, 1, 0])
    assert matthews_correlation(always_0, labels) == 0
    assert matthews_correlation(always_0, np.zeros(3, int)) == 0
    assert f1(always_0, np.zeros(3, int)) == 0


def test_unknown_positive_class_is_refused():
    with pytest.raises(ValueError, match="no class 2, only 2 classes"):
        f1(np.zeros((3, 2)), np.array([0, 1, 1]), positive=2)
