"""Slow float64 definitions of the losses of hidden states, one loop per sum.

All take (parameters, student, teacher, labels) and give one value per row.
"""

import math

import numpy as np


def _direction(x):
    return x / np.linalg.norm(x)


def _linear(params, x):
    return x @ np.asarray(params["kernel"]) + np.asarray(params["bias"])


def _fitted(params, student):
    return _linear(params, student) if params else student


def _each(rows):
    """A function of the vectors of one row, of every row."""

    def definition(params, student, teacher, labels):
        del labels
        return np.array(
            [rows(params, s, t) for s, t in zip(student, teacher, strict=True)]
        )

    return definition


def _huber(x):
    return x**2 / 2 if abs(x) <= 1 else abs(x) - 0.5


# --- by row ---


@_each
def hints(params, s, t):
    pairs = zip(s, t, strict=True)
    return np.mean([np.mean((_linear(params, a) - b) ** 2) for a, b in pairs])


@_each
def normalized_mse(params, s, t):
    return np.sum((_direction(_fitted(params, s)) - _direction(t)) ** 2)


@_each
def attention_transfer(params, s, t):
    ours, theirs = (_direction((x**2).sum(axis=1)) for x in (s, t))
    return np.mean((ours - theirs) ** 2)


@_each
def attention_mse(params, s, t):
    return np.mean((s - t) ** 2)


@_each
def attention_mse_of_means(params, s, t):
    return np.mean((s.mean(axis=0) - t.mean(axis=0)) ** 2)


@_each
def nst(params, s, t):
    def kernel_mean(x, y):
        values = [
            (_direction(x[:, i]) @ _direction(y[:, j])) ** 2
            for i in range(x.shape[1])
            for j in range(y.shape[1])
        ]
        return np.mean(values)

    return kernel_mean(s, s) - 2 * kernel_mean(s, t) + kernel_mean(t, t)


@_each
def vid(params, s, t):
    total = 0.0
    variance = np.log1p(np.exp(np.asarray(params["variance"]))) + 1e-5
    for a, b in zip(s, t, strict=True):
        first, second, third = params["mean"]
        mu = np.maximum(_linear(first, a), 0)
        mu = _linear(third, np.maximum(_linear(second, mu), 0))
        total += np.mean((mu - b) ** 2 / variance + np.log(variance)) / 2
    return total / len(s)


# --- whole batches ---


def similarity_preserving(params, student, teacher, labels):
    def profiles(x):
        return np.array([_direction([a @ b for b in x]) for a in x])

    return ((profiles(student) - profiles(teacher)) ** 2).mean(axis=1)


def cosine_difference(params, student, teacher, labels):
    def cosines(x):
        return np.array([[_direction(a) @ _direction(b) for b in x] for a in x])

    return np.abs(cosines(student) - cosines(teacher)).mean(axis=1)


def _distances(x):
    return np.array([[np.linalg.norm(a - b) for b in x] for a in x])


def rkd_distance(params, student, teacher, labels):
    relative = [d / d[d > 0].mean() for d in map(_distances, (student, teacher))]
    return np.vectorize(_huber)(relative[0] - relative[1]).mean(axis=1)


def rkd_angle(params, student, teacher, labels):
    def angles(x):
        found = np.zeros(3 * [len(x)])
        for i, j, k in np.ndindex(found.shape):
            if i not in (j, k):
                found[i, j, k] = _direction(x[j] - x[i]) @ _direction(x[k] - x[i])
        return found

    return np.vectorize(_huber)(angles(student) - angles(teacher)).mean(axis=(1, 2))


def pkt(kernel, divergence):
    kernels = {
        "cosine": lambda a, b: (1 + _direction(a) @ _direction(b)) / 2,
        "student_t": lambda a, b: 1 / (1 + math.sqrt((a - b) @ (a - b) + 1e-6)),
    }

    def neighbours(x, similarity):
        rows = np.array([[similarity(a, b) for b in x] for a in x])
        return rows / rows.sum(axis=1, keepdims=True)

    def definition(params, student, teacher, labels):
        if kernel == "both":
            return sum(
                pkt(name, divergence)(params, student, teacher, labels)
                for name in kernels
            )
        p, q = (neighbours(x, kernels[kernel]) for x in (student, teacher))
        weights = q if divergence == "kl" else q - p
        return (weights * np.log(q / p)).sum(axis=1)

    return definition


def crd(params, student, teacher, labels, temperature=0.07):
    ours = [_direction(_linear(params["student"], s)) for s in student]
    theirs = [_direction(_linear(params["teacher"], t)) for t in teacher]
    losses = []
    for i, u in enumerate(ours):
        loss = 0.0
        for j, v in enumerate(theirs):
            score = math.exp(u @ v / temperature)
            h = score / (score + len(ours) - 1)
            loss -= math.log(h if i == j else 1 - h)
        losses.append(loss)
    return np.array(losses)


def cka(params, student, teacher, labels):
    s, t = (x - x.mean(axis=0) for x in (student, teacher))
    # Of covariances here, of Gram matrices there.
    both = np.linalg.norm(s.T @ t) ** 2
    value = 1 - both / (np.linalg.norm(s.T @ s) * np.linalg.norm(t.T @ t))
    return np.full(len(s), value)


def distance_correlation(params, student, teacher, labels):
    def double_centred(x):
        d = _distances(x)
        return d - d.mean(axis=0) - d.mean(axis=1, keepdims=True) + d.mean()

    a, b = double_centred(student), double_centred(teacher)
    value = 1 - np.mean(a * b) / math.sqrt(np.mean(a * a) * np.mean(b * b))
    return np.full(len(a), value)


def _log_softmax(x):
    return x - math.log(np.exp(x - x.max()).sum()) - x.max()


def compression(params, student, teacher, labels):
    return compressed_distance(params, student, teacher, labels) + (
        compressed_labels(params, student, teacher, labels)
    )


def compressed_distance(params, student, teacher, labels):
    narrow = _linear(params["compress"], teacher)
    return distance_correlation((), student, narrow, labels)


def compressed_labels(params, student, teacher, labels):
    narrow = _linear(params["compress"], teacher)
    logits = _linear(params["classify"], narrow)
    return np.array(
        [-_log_softmax(row)[y] for row, y in zip(logits, labels, strict=True)]
    )


def norm_and_direction(class_means=None):
    def definition(params, student, teacher, labels):
        losses = []
        for s, t, y in zip(student, teacher, labels, strict=True):
            if class_means is None:
                mean = teacher[labels == y].mean(axis=0)
            else:
                mean = np.array(class_means[y])
            s = _fitted(params, s)
            longer = max(np.linalg.norm(s), np.linalg.norm(t))
            losses.append(1 - s @ _direction(mean) / longer)
        return np.array(losses)

    return definition


def wasserstein_dependency(params, student, teacher, labels, slope=10.0):
    def contracting(kernel):
        kernel = np.asarray(kernel)
        return kernel / max(1, np.linalg.svd(kernel, compute_uv=False)[0])

    first, second = contracting(params["first"]["kernel"]), params["second"]

    def critic(s, t):
        pair = np.concatenate([_direction(s), _direction(t)])
        units = np.maximum(pair @ first + np.asarray(params["first"]["bias"]), 0)
        return slope * (units @ contracting(second))[0]

    scores = np.array([[critic(s, t) for t in teacher] for s in student])
    return np.log(np.exp(scores).mean(axis=1)) - np.diag(scores)
