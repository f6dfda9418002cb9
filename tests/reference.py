"""Slow float64 definitions, written from the papers, one loop per sum.

Rows of student probabilities are p, of teacher probabilities q, as in the library.
"""

import math

import numpy as np


def softmax(logits, temperature=1.0):
    scaled = np.asarray(logits, np.float64) / temperature
    shifted = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _entropic(a, b):
    return math.fsum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


def kl(student, teacher, temperature=1.0):
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    rows = [temperature**2 * _entropic(q_i, p_i) for p_i, q_i in zip(p, q, strict=True)]
    return np.array(rows)


def reverse_kl(student, teacher, temperature=1.0):
    return kl(teacher, student, temperature)


def js(student, teacher, temperature=1.0, beta=0.5):
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    rows = []
    for p_i, q_i in zip(p, q, strict=True):
        m = beta * q_i + (1 - beta) * p_i
        skewed = beta * _entropic(q_i, m) + (1 - beta) * _entropic(p_i, m)
        rows.append(temperature**2 * skewed)
    return np.array(rows)


def total_variation(student, teacher, temperature=1.0):
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    return np.array([0.5 * np.abs(a - b).sum() for a, b in zip(p, q, strict=True)])


def soft_cross_entropy(student, teacher, temperature=1.0):
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    rows = []
    for p_i, q_i in zip(p, q, strict=True):
        rows.append(-math.fsum(y * math.log(x) for x, y in zip(p_i, q_i, strict=True)))
    return temperature**2 * np.array(rows)


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
        v = np.ones(len(y))
        for _ in range(num_iters):
            u = 1 / len(x) / (kernel @ v)
            v = 1 / len(y) / (kernel.T @ u)
        return epsilon * (np.log(u) + np.log(v))

    return potentials(p, q) - 0.5 * potentials(p, p) - 0.5 * potentials(q, q)
