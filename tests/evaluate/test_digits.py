"""Probes on representations whose content is known."""

import math

import numpy as np
import pytest

from kd.evaluate.digits import Digits, probe

random = np.random.default_rng(0)
SHOWN = random.integers(0, 10, (2000, 3))
TARGET = Digits(num_digits=3, width=32)


def one_hot(digits):
    return np.eye(10)[digits].reshape(len(digits), -1)


def mixed(values, width=32, noise=0.01):
    """A linear map of the values, with little noise."""
    maps = np.random.default_rng(1).normal(size=(values.shape[1], width))
    return values @ maps + noise * np.random.default_rng(2).normal(
        size=(len(values), width)
    )


def scores(representation):
    return TARGET.scores(representation, TARGET.numbers(SHOWN))


def test_numbers_and_digits():
    assert list(TARGET.digits(np.array([47]))[0]) == [0, 4, 7]
    assert list(TARGET.numbers(np.array([[0, 4, 7], [9, 9, 9]]))) == [47, 999]
    np.testing.assert_array_equal(TARGET.digits(TARGET.numbers(SHOWN)), SHOWN)
    nine = Digits(num_digits=9)
    largest = nine.numbers(np.full((1, 9), 9))
    assert largest.dtype == np.int32 and list(nine.digits(largest)[0]) == [9] * 9
    points = TARGET.points(np.array([47, 40]))
    assert points.shape == (2, 30) and list(points.sum(axis=1)) == [3, 3]
    np.testing.assert_allclose(np.square(points[0] - points[1]).sum(), 2)


def test_all_digits_are_found_where_all_are_there():
    found = scores(mixed(one_hot(SHOWN)))
    assert found["probe_accuracy"] > 0.99
    np.testing.assert_allclose(found["digits_recovered"], 3, atol=0.05)
    assert 0.9 * 3 * math.log(10) < found["probe_information"] <= 3 * math.log(10)


def test_scores_are_those_of_the_metrics():
    representation = mixed(one_hot(SHOWN[:, :2]), noise=1.0)[:600]
    targets = TARGET.numbers(SHOWN[:600])
    found = TARGET.scores(representation, targets)
    assert list(found) == [metric.name for metric in TARGET.metrics]
    for metric in TARGET.metrics:
        assert metric.compute(representation, targets) == found[metric.name]


def test_one_of_three_is_found_where_one_is_there():
    representation = mixed(one_hot(SHOWN[:, 1:2]))
    accuracy, nats = probe(representation, SHOWN)
    assert accuracy[1] > 0.99 and max(accuracy[0], accuracy[2]) < 0.15
    assert nats[1] > 0.9 * math.log(10) and max(nats[0], nats[2]) < 0.05
    np.testing.assert_allclose(scores(representation)["digits_recovered"], 1, atol=0.1)


def test_nothing_is_found_in_noise():
    found = scores(random.normal(size=(2000, 32)))
    assert abs(found["probe_accuracy"] - 0.1) < 0.03
    assert abs(found["digits_recovered"]) < 0.1
    assert found["probe_information"] < 0.05


def test_probes_are_asked_about_rows_they_were_not_trained_on():
    """As many features as rows: everything is learnt by heart, nothing is found."""
    few = random.normal(size=(60, 200))
    accuracy, _ = probe(few, SHOWN[:60])
    assert accuracy.mean() < 0.35


def test_a_constant_representation_and_a_digit_that_never_came_up():
    assert abs(probe(np.ones((400, 2)), SHOWN[:400]).accuracy.mean() - 0.1) < 0.1
    shown = np.repeat([[1], [2], [3], [9]], 50, axis=0)
    accuracy, nats = probe(one_hot(shown), shown)
    assert accuracy[0] == 0 and np.isfinite(nats).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Digits(num_digits=0), "num_digits must be 1 to 9, got 0"),
        (lambda: Digits(num_digits=10), "num_digits must be 1 to 9, got 10"),
        (lambda: Digits(width=0), "width must be at least 1"),
        (lambda: TARGET.parse("1234"), "number '1234'; expected at most 3 digits"),
        (lambda: TARGET.parse("-1"), "number '-1'; expected at most 3 digits"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_targets_out_of_range():
    assert TARGET.problem(np.array([3, 1000])) == (
        "example 1 shows 1000; expected a number of at most 3 digits"
    )
    assert TARGET.problem(np.array([0, 999])) == ""
    assert TARGET.parse("47") == 47
