"""Slow float64 definitions, written from the papers, one loop per sum.

Rows of student probabilities are p, of teacher probabilities q, as in the library.
A loss that holds some of the student constant takes that student as `held`.
"""

import math

import numpy as np


def softmax(logits, temperature=1.0):
    scaled = np.asarray(logits, np.float64) / temperature
    shifted = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _entropic(a, b):
    return math.fsum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


def _cross(a, b):
    return -math.fsum(x * math.log(y) for x, y in zip(a, b, strict=True))


def _by_row(divergence, student, teacher, temperature=1.0):
    """A divergence of probabilities p, q, of every row."""
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    return np.array([divergence(p_i, q_i) for p_i, q_i in zip(p, q, strict=True)])


def kl(student, teacher, temperature=1.0):
    rows = _by_row(lambda p, q: _entropic(q, p), student, teacher, temperature)
    return temperature**2 * rows


def reverse_kl(student, teacher, temperature=1.0):
    return kl(teacher, student, temperature)


def jeffreys(student, teacher, forward=1.0, reverse=1.0):
    return forward * kl(student, teacher) + reverse * reverse_kl(student, teacher)


def js(student, teacher, temperature=1.0, beta=0.5):
    def skewed(p, q):
        m = beta * q + (1 - beta) * p
        return beta * _entropic(q, m) + (1 - beta) * _entropic(p, m)

    return temperature**2 * _by_row(skewed, student, teacher, temperature)


def skewed_kl(student, teacher, skew):
    return _by_row(
        lambda p, q: _entropic(q, skew * q + (1 - skew) * p), student, teacher
    )


def skewed_reverse_kl(student, teacher, skew, held=None):
    p, q = softmax(student), softmax(teacher)
    mixed = (1 - skew) * q + skew * (p if held is None else softmax(held))
    return np.array([_entropic(p_i, m_i) for p_i, m_i in zip(p, mixed, strict=True)])


def total_variation(student, teacher, temperature=1.0):
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    return np.array([0.5 * np.abs(a - b).sum() for a, b in zip(p, q, strict=True)])


def soft_cross_entropy(student, teacher, temperature=1.0):
    rows = _by_row(lambda p, q: _cross(q, p), student, teacher, temperature)
    return temperature**2 * rows


def reverse_cross_entropy(student, teacher, temperature=1.0):
    return soft_cross_entropy(teacher, student, temperature)


def hard_cross_entropy(student, teacher):
    def of_first_choice(p, q):
        likeliest = max(range(len(q)), key=q.__getitem__)
        return -math.log(p[likeliest])

    return _by_row(of_first_choice, student, teacher)


def f_divergence(student, teacher, generator, temperature=1.0):
    def expectation(p, q):
        return math.fsum(x * generator(y / x) for x, y in zip(p, q, strict=True))

    return temperature**2 * _by_row(expectation, student, teacher, temperature)


def hellinger(student, teacher):
    return _by_row(
        lambda p, q: 0.5 * np.sum((np.sqrt(p) - np.sqrt(q)) ** 2), student, teacher
    )


def chi_squared(student, teacher):
    return _by_row(lambda p, q: np.sum((q - p) ** 2 / p), student, teacher)


def alpha(student, teacher, alpha):
    return _by_row(
        lambda p, q: (np.sum(q**alpha * p ** (1 - alpha)) - 1) / (alpha * (alpha - 1)),
        student,
        teacher,
    )


def renyi(student, teacher, alpha):
    return _by_row(
        lambda p, q: np.log(np.sum(q**alpha * p ** (1 - alpha))) / (alpha - 1),
        student,
        teacher,
    )


def adaptive_kl(student, teacher, head_mass=0.5, held=None):
    p, q = softmax(student if held is None else held), softmax(teacher)
    shares = []
    for p_i, q_i in zip(p, q, strict=True):
        head, mass = [], 0.0
        for v in sorted(range(len(q_i)), key=lambda v: -q_i[v]):
            mass += q_i[v]
            if not head or mass <= head_mass:
                head.append(v)
        gap = np.abs(p_i - q_i)
        shares.append(gap[head].sum() / gap.sum())
    shares = np.array(shares)
    return shares * kl(student, teacher) + (1 - shares) * reverse_kl(student, teacher)


def balanced_kl(student, teacher, temperature=1.0, emphasis=2.0):
    def balanced(p, q):
        sharper = _cross(p, p) < _cross(q, q)
        forward, reverse = (emphasis, 1.0) if sharper else (1.0, emphasis)
        return forward * _entropic(q, p) + reverse * _entropic(p, q)

    return temperature**2 * _by_row(balanced, student, teacher, temperature)


def logit_mse(student, teacher, amplitude=1.0):
    return np.mean((student - amplitude * teacher) ** 2, axis=1)


def continuation(student, teacher, amplitude=1.0, margin=0.0):
    squared = np.sum((student - amplitude * teacher) ** 2, axis=1)
    return np.maximum(squared - margin, 0)


def standardize(logits, correction=0):
    mean = logits.mean(axis=1, keepdims=True)
    return (logits - mean) / logits.std(axis=1, keepdims=True, ddof=correction)


def decoupled_parts(student, teacher, labels, temperature=1.0):
    """TCKD and NCKD."""
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    parts = []
    for p_i, q_i, y in zip(p, q, labels, strict=True):
        p_rest, q_rest = np.delete(p_i, y), np.delete(q_i, y)
        target = _entropic([q_i[y], q_rest.sum()], [p_i[y], p_rest.sum()])
        parts.append((target, _entropic(q_rest / q_rest.sum(), p_rest / p_rest.sum())))
    return np.array(parts).T


def dkd(student, teacher, labels, temperature=4.0, alpha=1.0, beta=8.0):
    target, others = decoupled_parts(student, teacher, labels, temperature)
    return temperature**2 * (alpha * target + beta * others)


def atkd(student, teacher, labels, alpha=0.2, reverse=False):
    n = len(labels)
    uncertainty = 1 - softmax(teacher)[np.arange(n), labels]
    hard = uncertainty >= sorted(uncertainty)[(n - 1) // 2]
    pair = (teacher, student) if reverse else (student, teacher)
    target, others = decoupled_parts(*pair, labels)
    return n * np.where(
        hard,
        (1 - alpha) * (target + others) / max(hard.sum(), 1),
        alpha * others / max((~hard).sum(), 1),
    )


def _halved_squares(a, b):
    """1/2 (a / |a| - b / |b|)^2, entry by entry."""
    return 0.5 * (a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2


def value_correlation(student, teacher, temperature=4.0):
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    n, v = p.shape
    losses = np.zeros(n)
    for i in range(n):
        losses[i] += 1 - p[i] @ q[i] / np.linalg.norm(p[i]) / np.linalg.norm(q[i])
    for c in range(v):
        losses += n / v * _halved_squares(p[:, c], q[:, c])
    return temperature**2 * losses


def dist(student, teacher, temperature=1.0, inter=1.0, intra=1.0):
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    n, v = p.shape
    losses = np.zeros(n)
    for i in range(n):
        losses[i] += inter * (1 - np.corrcoef(p[i], q[i])[0, 1])
    for c in range(v):
        a, b = p[:, c] - p[:, c].mean(), q[:, c] - q[:, c].mean()
        losses += intra * n / v * _halved_squares(a, b)
    return temperature**2 * losses


def rank_correlation(student, teacher, softness=1.0):
    def ranks(z):
        return [sum(1 / (1 + np.exp((w - x) / softness)) for w in z) for x in z]

    return np.array(
        [
            1 - np.corrcoef(ranks(s), ranks(t))[0, 1]
            for s, t in zip(student, teacher, strict=True)
        ]
    )


def batch_correlation(student, teacher, temperature=4.0):
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    pairs = range(len(p))
    return np.array(
        [sum((p[i] @ p[j] - q[i] @ q[j]) ** 2 for j in pairs) for i in pairs]
    )


def class_correlation(student, teacher, temperature=4.0):
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    classes = range(p.shape[1])
    total = sum(
        (p[:, u] @ p[:, v] - q[:, u] @ q[:, v]) ** 2 for u in classes for v in classes
    )
    return np.full(len(p), total / len(classes))


def comparative_kl(student, teacher, temperature=4.0, positives=2, negatives=1):
    def differences(z):
        n, rows = len(z), []
        for i in range(n):
            first = [z[(i + k) % n] for k in range(positives)]
            second = [z[(i + positives + k) % n] for k in range(negatives)]
            rows.append(np.mean(first, axis=0) - np.mean(second, axis=0))
        return np.array(rows)

    return kl(differences(student), differences(teacher), temperature)


def sinkd(student, teacher, temperature=2.0, epsilon=0.1, num_iters=20):
    """Kernel normalised to unit rows, then unit columns; no scaling vectors."""
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    cost = np.array([[np.abs(p_i - q_j).sum() for q_j in q] for p_i in p])
    plan = np.exp(-cost / epsilon)
    for _ in range(num_iters):
        plan = plan / plan.sum(axis=1, keepdims=True)
        plan = plan / plan.sum(axis=0, keepdims=True)
    return (plan * cost).sum(axis=1)


def sinkhorn_divergence(student, teacher, temperature=2.0, epsilon=0.1, num_iters=20):
    """By dual potentials: f_i + g_i of one problem less half those of the others."""
    p, q = softmax(student, temperature), softmax(teacher, temperature)

    def potentials(x, y):
        kernel = np.exp(-np.abs(x[:, None] - y[None]).sum(axis=-1) / epsilon)
        u, v = np.ones(len(x)), np.ones(len(y))
        for _ in range(num_iters):
            u = 1 / len(x) / (kernel @ v)
            v = 1 / len(y) / (kernel.T @ u)
        return epsilon * (np.log(u) + np.log(v))

    return potentials(p, q) - 0.5 * potentials(p, p) - 0.5 * potentials(q, q)


def optimal_transport(
    student, teacher, temperature=2.0, epsilon=0.1, taus=(1.0, 1.0), held=None
):
    """By scaling vectors, iterated until they stand still."""

    def cost_of(student):
        p, q = softmax(student, temperature), softmax(teacher, temperature)
        return np.array([[np.abs(p_i - q_j).sum() for q_j in q] for p_i in p])

    n = len(student)
    kernel = np.exp(-cost_of(student if held is None else held) / epsilon) / n**2
    u, v, last = np.ones(n), np.ones(n), np.zeros(n)
    while np.max(np.abs(u / np.maximum(last, 1e-300) - 1)) > 1e-15:
        last = u
        v = (1 / n / (kernel.T @ u)) ** taus[1]
        u = (1 / n / (kernel @ v)) ** taus[0]
    plan = u[:, None] * kernel * v
    losses = (plan * cost_of(student)).sum(axis=1)
    for tau, sums in zip(taus, (plan.sum(axis=1), plan.sum(axis=0)), strict=True):
        if tau < 1:
            kl = sums * np.log(n * sums) - sums + 1 / n
            losses += epsilon * tau / (1 - tau) * kl
    return n * losses
