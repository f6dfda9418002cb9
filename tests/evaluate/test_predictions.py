import jaxtyping
import numpy as np
import pytest

from kd.evaluate.accuracy import accuracy, f1, matthews_correlation
from kd.evaluate.calibration import brier_score, negative_log_likelihood, reliability
from kd.evaluate.fidelity import agreement, kl, total_variation

NAN, INF = float("nan"), float("inf")

of_labels = pytest.mark.parametrize(
    "score",
    [
        accuracy,
        f1,
        matthews_correlation,
        reliability,
        negative_log_likelihood,
        brier_score,
    ],
)
of_a_pair = pytest.mark.parametrize("score", [agreement, kl, total_variation])


@pytest.fixture(autouse=True)
def no_type_checks(monkeypatch):
    # The tests' type checker would be the first to complain.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


BAD_LOGITS = [
    (np.zeros(3), r"expected logits \[n, v\]"),
    (np.zeros((0, 3)), "no predictions"),
    (np.zeros((3, 0)), "no predictions"),
    (np.array([[0, 1], [NAN, 0], [0, 1]]), "a logit is NaN"),
    (np.array([[0, 1], [INF, 0], [0, 1]]), r"a logit is \+inf"),
    (np.array([[0, 1], [-INF, -INF], [0, 1]]), "of an example are -inf"),
]


@of_labels
@pytest.mark.parametrize(("logits", "message"), BAD_LOGITS)
def test_bad_logits_are_refused(score, logits, message):
    with pytest.raises(ValueError, match=message):
        score(logits, np.zeros(len(logits), int))


@of_a_pair
@pytest.mark.parametrize(("logits", "message"), BAD_LOGITS)
def test_bad_logits_of_either_are_refused(score, logits, message):
    with pytest.raises(ValueError, match=message):
        score(logits, np.zeros_like(logits))
    with pytest.raises(ValueError, match=message):
        score(np.zeros_like(logits), logits)


@of_labels
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1]), r"expected 3 labels .* got shape \(2,\)"),
        (np.array([[0], [1], [0]]), r"got shape \(3, 1\)"),
        (np.array([0.0, 1.0, 0.0]), "integer labels, got float64"),
        (np.array([0, 1, 2]), r"labels in \[0, 2\), got 0 to 2"),
        (np.array([0, 1, -1]), r"labels in \[0, 2\), got -1 to 1"),
    ],
)
def test_bad_labels_are_refused(score, labels, message):
    with pytest.raises(ValueError, match=message):
        score(np.zeros((3, 2)), labels)


@of_a_pair
def test_shapes_that_differ_are_refused(score):
    # (1, 2) would broadcast.
    with pytest.raises(ValueError, match=r"student \(1, 2\), teacher \(3, 2\)"):
        score(np.zeros((1, 2)), np.zeros((3, 2)))
