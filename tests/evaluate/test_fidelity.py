import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from kd.evaluate.classes import Classes
from kd.evaluate.fidelity import agreement, kl, rank_correlation, total_variation

INF = float("inf")


def logits(seed: int, *, rows: int = 50, classes: int = 4):
    return 2 * np.random.default_rng(seed).normal(size=(rows, classes))


def test_equal_scipy():
    student, teacher = logits(0), logits(1)
    p = scipy.special.softmax(student, axis=1)
    q = scipy.special.softmax(teacher, axis=1)
    expected = np.mean(
        [scipy.stats.entropy(q_i, p_i) for p_i, q_i in zip(p, q, strict=True)]
    )
    assert kl(student, teacher) == pytest.approx(expected, rel=1e-12)
    # The total variation distance is the largest gap in the probability of any event.
    events = (np.arange(16)[:, None] >> np.arange(4)) & 1
    expected = np.mean(np.max((p - q) @ events.T, axis=1))
    assert total_variation(student, teacher) == pytest.approx(expected, rel=1e-12)


def test_by_hand():
    student = np.log([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]])
    teacher = np.log([[0.75, 0.25], [0.6, 0.4], [0.9, 0.1]])
    assert agreement(student, teacher) == pytest.approx(2 / 3)
    assert total_variation(student, teacher) == pytest.approx((0.25 + 0.4 + 0) / 3)
    assert kl(student, teacher) == pytest.approx(
        (0.75 * np.log(1.5) + 0.25 * np.log(0.5) + 0.6 * np.log(3) + 0.4 * np.log(0.5))
        / 3
    )


def test_rank_correlation_equals_scipy():
    student, teacher = logits(0, classes=7), logits(1, classes=7)
    student = np.round(student)  # with ties
    pairs = zip(student, teacher, strict=True)
    expected = np.mean([scipy.stats.spearmanr(s, t).statistic for s, t in pairs])
    assert rank_correlation(student, teacher) == pytest.approx(expected, rel=1e-12)
    assert rank_correlation(teacher, student) == pytest.approx(expected, rel=1e-12)


def test_rank_correlation_by_hand():
    teacher = np.array([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [3, 2, 1]])
    student = np.array([[9.0, 5, -INF], [1, 2, 3], [2, 3, 1], [0, 0, 0]])
    assert rank_correlation(student[:1], teacher[:1]) == pytest.approx(1)
    assert rank_correlation(student[1:2], teacher[1:2]) == pytest.approx(-1)
    # 1 - 6 (1 + 1) / (3 (9 - 1))
    assert rank_correlation(student[2:3], teacher[2:3]) == pytest.approx(0.5)
    assert rank_correlation(student, teacher) == pytest.approx((1 - 1 + 0.5 + 0) / 4)


def test_rank_correlation_is_reported_from_three_classes_on():
    names = [
        [metric.name for metric in Classes(labels).fidelity]
        for labels in (("a", "b"), ("a", "b", "c"))
    ]
    assert names[1] == [*names[0], "rank_correlation"]


def test_teacher_and_student_are_not_interchangeable():
    student, teacher = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    assert kl(student, teacher) == pytest.approx(0.9 * np.log(1.8) + 0.1 * np.log(0.2))
    assert kl(teacher, student) == pytest.approx(
        0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(5)
    )


def test_equal_up_to_a_shift_of_the_logits():
    student = logits(2)
    assert agreement(student, student) == 1
    assert kl(student, student) == 0
    assert total_variation(student, student) == 0
    assert kl(student, student + 3) == pytest.approx(0, abs=1e-12)
    assert total_variation(student, student + 3) == pytest.approx(0, abs=1e-12)


def test_one_example_and_one_class():
    one = np.zeros((1, 1))
    assert (agreement(one, one), kl(one, one), total_variation(one, one)) == (1, 0, 0)


def test_classes_that_both_rule_out_change_nothing():
    student, teacher = logits(3), logits(4)
    padding = {"pad_width": ((0, 0), (0, 3)), "constant_values": -INF}
    for score in (agreement, kl, total_variation):
        assert score(np.pad(student, **padding), np.pad(teacher, **padding)) == (
            pytest.approx(score(student, teacher), rel=1e-12)
        )


def test_one_hot_teacher():
    student, teacher = np.log([[0.25, 0.75]]), np.array([[0, -INF]])
    assert kl(student, teacher) == pytest.approx(np.log(4))
    assert total_variation(student, teacher) == pytest.approx(0.75)
    assert kl(teacher, student) == INF


def test_probability_that_underflows_counts_as_zero():
    # exp(-800) is 0 in float64 though -800 is finite: 0 * inf would be NaN.
    assert kl(np.array([[0, -INF]]), np.array([[0, -800.0]])) == 0
    assert kl(np.array([[1e4, -1e4]]), np.array([[-1e4, 1e4]])) == 2e4
    assert total_variation(np.array([[1e4, -1e4]]), np.array([[-1e4, 1e4]])) == 1


def test_computes_in_float64():
    student, teacher = (
        np.asarray(jnp.asarray(logits(s), jnp.bfloat16)) for s in (5, 6)
    )
    for score in (kl, total_variation):
        exact = score(student.astype(np.float64), teacher.astype(np.float64))
        assert score(student, teacher) == exact
