"""How well a student mimics its teacher, right or wrong (stanton2021does)."""

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, softmax


def agreement(
    student: Float[np.ndarray, "n v"], teacher: Float[np.ndarray, "n v"]
) -> float:
    """Share of the examples on which both predict the same class.

    Raises:
        ValueError: the shapes differ, there are no examples, or a logit is NaN.
    """
    _check(student, teacher)
    return float(np.mean(student.argmax(axis=-1) == teacher.argmax(axis=-1)))


def kl(student: Float[np.ndarray, "n v"], teacher: Float[np.ndarray, "n v"]) -> float:
    """Mean KL(teacher || student) in nats, at temperature 1; 0 log 0 = 0.

    Raises:
        ValueError: the shapes differ, there are no examples, or a logit is NaN.
    """
    _check(student, teacher)
    log_p, log_q = (
        log_softmax(np.asarray(logits, np.float64), axis=-1)
        for logits in (student, teacher)
    )
    with np.errstate(invalid="ignore"):
        terms = np.where(log_q > -np.inf, np.exp(log_q) * (log_q - log_p), 0)
    return float(terms.sum(axis=-1).mean())


def total_variation(
    student: Float[np.ndarray, "n v"], teacher: Float[np.ndarray, "n v"]
) -> float:
    """Mean of 1/2 sum_v |p_v - q_v|, between 0 and 1, at temperature 1.

    Raises:
        ValueError: the shapes differ, there are no examples, or a logit is NaN.
    """
    _check(student, teacher)
    p, q = (
        softmax(np.asarray(logits, np.float64), axis=-1)
        for logits in (student, teacher)
    )
    return float(0.5 * np.abs(p - q).sum(axis=-1).mean())


def _check(student, teacher):
    if student.shape != teacher.shape or student.ndim != 2:
        raise ValueError(
            f"expected two [n, v] arrays of logits, got {student.shape} and "
            f"{teacher.shape}"
        )
    if not len(student):
        raise ValueError("there are no examples")
    if np.isnan(student).any() or np.isnan(teacher).any():
        raise ValueError("a logit is NaN")
