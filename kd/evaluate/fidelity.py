"""How well a student mimics its teacher, whether the teacher is right or wrong.

A student can match its teacher's accuracy and still disagree with it on many
examples; only these scores tell. All are taken at temperature 1.

Source: stanton2021does, who report the first two.
"""

import numpy as np
import scipy.stats
from jaxtyping import Float
from scipy.special import log_softmax, softmax

from kd.evaluate.predictions import checked_logits


def agreement(
    student: Float[np.ndarray, "n v"], teacher: Float[np.ndarray, "n v"]
) -> float:
    """Share of the examples for which both predict the same class.

        agreement = mean_i [argmax_v s_iv = argmax_v t_iv]

    Args:
        student: logits, [n, v], any float dtype; -inf means probability 0.
        teacher: logits, [n, v].

    Returns:
        Between 0 and 1.

    Raises:
        ValueError: the shapes differ, no examples, or NaN.
    """
    student, teacher = _checked_pair(student, teacher)
    return float(np.mean(student.argmax(axis=-1) == teacher.argmax(axis=-1)))


def kl(student: Float[np.ndarray, "n v"], teacher: Float[np.ndarray, "n v"]) -> float:
    """Mean Kullback–Leibler divergence KL(teacher ‖ student).

        KL = mean_i sum_v q_iv (log q_iv - log p_iv),    p = softmax(s), q = softmax(t)

    with 0 log 0 = 0.

    Args:
        student: logits, [n, v], any float dtype; -inf means probability 0.
        teacher: logits, [n, v].

    Returns:
        Nats per example; inf where the student rules out what the teacher does not.

    Raises:
        ValueError: the shapes differ, no examples, or NaN.
    """
    student, teacher = _checked_pair(student, teacher)
    log_p, log_q = log_softmax(student, axis=-1), log_softmax(teacher, axis=-1)
    q = np.exp(log_q)
    # q rather than log q decides what counts as 0: exp underflows, and 0 * inf is NaN.
    ratios = np.subtract(log_q, log_p, out=np.zeros_like(q), where=q > 0)
    return float(np.sum(q * ratios, axis=-1).mean())


def total_variation(
    student: Float[np.ndarray, "n v"], teacher: Float[np.ndarray, "n v"]
) -> float:
    """Mean total variation distance of the predicted distributions.

        TV = mean_i 1/2 sum_v |p_iv - q_iv|,    p = softmax(s), q = softmax(t)

    Args:
        student: logits, [n, v], any float dtype; -inf means probability 0.
        teacher: logits, [n, v].

    Returns:
        Between 0 and 1: the probability mass that the two place differently.

    Raises:
        ValueError: the shapes differ, no examples, or NaN.
    """
    student, teacher = _checked_pair(student, teacher)
    gaps = np.abs(softmax(student, axis=-1) - softmax(teacher, axis=-1))
    return float(0.5 * gaps.sum(axis=-1).mean())


def rank_correlation(
    student: Float[np.ndarray, "n v"], teacher: Float[np.ndarray, "n v"]
) -> float:
    """Whether both put the classes in the same order, likely or not.

        mean_i spearman(s_i, t_i) = mean_i pearson(rank(s_i), rank(t_i))

    over the v classes, ties sharing their mean rank. Of two classes it says no more
    than `agreement`.

    Args:
        student: logits, [n, v], any float dtype; -inf means probability 0.
        teacher: logits, [n, v].

    Returns:
        Between -1 and 1; an example counts as 0 where one of both tells no class from
        another.

    Raises:
        ValueError: the shapes differ, no examples, or NaN.
    """
    student, teacher = _checked_pair(student, teacher)
    ranks = (scipy.stats.rankdata(x, axis=-1) for x in (student, teacher))
    x, y = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    sizes = np.sqrt(np.sum(x * x, axis=-1) * np.sum(y * y, axis=-1))
    products = np.sum(x * y, axis=-1)
    return float(np.mean(products / np.where(sizes > 0, sizes, 1)))


def _checked_pair(
    student: np.ndarray, teacher: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if np.shape(student) != np.shape(teacher):
        raise ValueError(
            f"shapes differ: student {np.shape(student)}, teacher {np.shape(teacher)}"
        )
    return checked_logits(student), checked_logits(teacher)
