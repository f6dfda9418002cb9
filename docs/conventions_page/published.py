"""What published codes compute, written from their formulas, to compare losses with.

Every function takes a `Pair` and gives the scalar that the code named beside it in
`docs.conventions_page` would minimise, weights of whole terms left out. Nothing here
is used in training: these have the codes' own conventions, deviations from their
papers included, and none of the care that `kd.divergences` takes with extreme logits.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Positions = Literal["counted", "all", "padding"]
"""The positions that a code averages over."""


class Pair(NamedTuple):
    """Predictions of a student and of a teacher for the same tokens."""

    student: Float[Array, "b n v"]
    """Logits."""
    teacher: Float[Array, "b n v"]
    counted: Bool[np.ndarray, "b n"]
    """False on padding."""
    labels: Int[np.ndarray, "b n"]


def forward_kl(
    pair, *, temperature=1.0, squared=False, positions: Positions = "counted"
):
    """KL(q || p)."""
    log_p, log_q = _predictions(pair, temperature, positions)
    factor = temperature**2 if squared else 1.0
    return factor * jnp.mean(_kl(log_q, log_p))


def reverse_kl(pair, *, temperature=1.0, squared=False, factor=1.0):
    """KL(p || q)."""
    log_p, log_q = _predictions(pair, temperature)
    factor *= temperature**2 if squared else 1.0
    return factor * jnp.mean(_kl(log_p, log_q))


def soft_cross_entropy(pair, *, temperature=1.0, positions: Positions = "counted"):
    """-sum_v q log p, never times temperature^2."""
    log_p, log_q = _predictions(pair, temperature, positions)
    return -jnp.mean(jnp.sum(jnp.exp(log_q) * log_p, axis=-1))


def reverse_cross_entropy(pair, *, temperature=1.0):
    """-sum_v p log q, never times temperature^2."""
    log_p, log_q = _predictions(pair, temperature)
    return -jnp.mean(jnp.sum(jnp.exp(log_p) * log_q, axis=-1))


def mixed_kl(pair, *, forward, reverse):
    """Forward KL(q || p) + reverse KL(p || q)."""
    return forward * forward_kl(pair) + reverse * reverse_kl(pair)


def symmetric_without_entropy(pair, *, student):
    """Student KL(p || q) - (1 - student) sum_v q log p."""
    return student * reverse_kl(pair) + (1 - student) * soft_cross_entropy(pair)


def jensen_shannon(pair, *, teacher, weight, temperature=1.0, sequences=False):
    """Weight KL(q || m) + (1 - weight) KL(p || m), m = teacher q + (1 - teacher) p."""
    log_p, log_q = _predictions(pair, temperature)
    log_m = jnp.log(teacher * jnp.exp(log_q) + (1 - teacher) * jnp.exp(log_p))
    losses = weight * _kl(log_q, log_m) + (1 - weight) * _kl(log_p, log_m)
    return _mean_of_means(losses, pair) if sequences else jnp.mean(losses)


def fdistill_js(pair, *, beta, temperature=1.0, squared=False):
    """Beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q."""
    log_p, log_q = _predictions(pair, temperature)
    log_m = jnp.log(beta * jnp.exp(log_p) + (1 - beta) * jnp.exp(log_q) + 1e-10)
    losses = beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)
    return (temperature**2 if squared else 1.0) * jnp.mean(losses)


def sinkd_js(pair):
    """0.025 sum_v m (2 log m - p - q): probabilities where logarithms belong."""
    p, q = map(jnp.exp, _predictions(pair, 2.0))
    m = (p + q) / 2
    return 0.025 * jnp.mean(jnp.sum(m * (2 * jnp.log(m) - p - q), axis=-1))


def skewed_forward(pair, *, skew):
    """-sum_v q log(skew q + (1 - skew) p)."""
    log_p, log_q = _predictions(pair)
    log_m = jnp.log(skew * jnp.exp(log_q) + (1 - skew) * jnp.exp(log_p))
    return -jnp.mean(jnp.sum(jnp.exp(log_q) * log_m, axis=-1))


def skewed_forward_of_sequences(pair, *, skew):
    """KL(q || m) with m as in `skewed_forward`, a mean of the sequences' own means."""
    log_p, log_q = _predictions(pair)
    log_m = jnp.log(skew * jnp.exp(log_q) + (1 - skew) * jnp.exp(log_p))
    return _mean_of_means(_kl(log_q, log_m), pair)


def skewed_reverse(pair, *, skew):
    """KL(p || (1 - skew) q + skew p)."""
    log_p, log_q = _predictions(pair)
    log_m = jnp.log((1 - skew) * jnp.exp(log_q) + skew * jnp.exp(log_p))
    return jnp.mean(_kl(log_p, log_m))


def skewed_reverse_of_sequences(pair, *, skew):
    """The same with p constant in m, a mean of the sequences' own means."""
    log_p, log_q = _predictions(pair)
    constant = jax.lax.stop_gradient(jnp.exp(log_p))
    log_m = jnp.log((1 - skew) * jnp.exp(log_q) + skew * constant)
    return _mean_of_means(_kl(log_p, log_m), pair)


def total_variation(
    pair, *, temperature=1.0, squared=False, positions: Positions = "counted"
):
    """1/2 sum_v |p - q|."""
    p, q = map(jnp.exp, _predictions(pair, temperature, positions))
    factor = temperature**2 if squared else 1.0
    return factor * 0.5 * jnp.mean(jnp.sum(jnp.abs(p - q), axis=-1))


def sinkd_samplewise(pair):
    """0.001 sum_i sum_v |p_i - q_i|: a plan of one row moves all to one column."""
    p, q = map(jnp.exp, _predictions(pair))
    return 0.001 * jnp.sum(jnp.abs(p - q))


def adaptive_kl(pair, *, mass, crossing_in_head=False):
    """KLs weighted by the gaps |p - q| at the teacher's head and tail, constant."""
    log_p, log_q = _predictions(pair)
    p, q = jax.lax.stop_gradient((jnp.exp(log_p), jnp.exp(log_q)))
    # Mass of the classes more probable than this one, and with this one.
    at_least = q[:, None, :] >= q[:, :, None]
    with_it = jnp.sum(jnp.where(at_least, q[:, None, :], 0), axis=-1)
    before = with_it - q
    within = (with_it <= mass) | (before <= 0)
    head = before < mass if crossing_in_head else within
    share = jnp.sum(jnp.abs(p - q), -1, where=head) / jnp.sum(jnp.abs(p - q), -1)
    losses = share * _kl(log_q, log_p) + (1 - share) * _kl(log_p, log_q)
    return jnp.mean(losses)


def dkd(pair, *, alpha, beta, temperature):
    """temperature^2 (alpha TCKD + beta NCKD), the target at a logit less 1000."""
    labels = pair.labels[pair.counted]
    (target, _), losses = _target_and_others(pair, temperature, labels)
    return temperature**2 * jnp.mean(alpha * target + beta * losses)


def atkd(pair, *, alpha, reverse=False):
    """Alpha mean NCKD of easy tokens + (1 - alpha) (mean TCKD + mean NCKD) of hard."""
    labels = pair.labels[pair.counted]
    (_, uncertainty), _ = _target_and_others(pair, 1.0, labels)
    # The lower of the two in the middle.
    hard = uncertainty >= jnp.sort(uncertainty)[(len(uncertainty) - 1) // 2]
    if reverse:
        pair = pair._replace(student=pair.teacher, teacher=pair.student)
    (target, _), others = _target_and_others(pair, 1.0, labels)
    return alpha * jnp.mean(others, where=~hard) + (1 - alpha) * (
        jnp.mean(target, where=hard) + jnp.mean(others, where=hard)
    )


def value_correlation(pair, *, temperature):
    """Twice temperature^2 (2 - mean |cos| of rows - mean |cos| of columns)."""
    p, q = map(jnp.exp, _predictions(pair, temperature))
    rows, columns = (jnp.mean(jnp.abs(_cosine(p, q, axis))) for axis in (1, 0))
    return 2 * temperature**2 * (2 - rows - columns)


def rank_correlation(pair):
    """Twice (1 - mean Spearman correlation); argsort has no gradient."""
    log_p, log_q = _predictions(pair)
    ranks = [jnp.argsort(jnp.argsort(x)).astype(x.dtype) for x in (log_p, log_q)]
    a, b = (x - jnp.mean(x, axis=1, keepdims=True) for x in ranks)
    return 2 * (1 - jnp.mean(_cosine(a, b, 1)))


def dist(pair, *, temperature):
    """temperature^2 (2 - mean Pearson of rows - mean Pearson of columns)."""
    p, q = map(jnp.exp, _predictions(pair, temperature))

    def pearson(axis):
        a, b = (x - jnp.mean(x, axis, keepdims=True) for x in (p, q))
        return jnp.mean(_cosine(a, b, axis))

    return temperature**2 * (2 - pearson(1) - pearson(0))


def gram(pair, *, of: Literal["rows", "classes"], temperature):
    """|P P' - Q Q'|^2 / b, or |P' P - Q' Q|^2 / v."""
    p, q = map(jnp.exp, _predictions(pair, temperature))
    if of == "classes":
        p, q = p.T, q.T
    return jnp.sum(jnp.square(p @ p.T - q @ q.T)) / len(p)


def sinkhorn(pair, *, scale, temperature=2.0, epsilon=0.1, num_iters=20):
    """Scale <P, C>, P having columns of sum 1: total mass b, a sum over the batch."""
    p, q = map(jnp.exp, _predictions(pair, temperature))
    difference = p[:, None] - q[None]
    # The derivative of jnp.abs at 0 is 1.
    cost = jnp.sum(difference * jax.lax.stop_gradient(jnp.sign(difference)), axis=-1)

    def normalise(plan, _):
        plan = plan / jnp.sum(plan, axis=1, keepdims=True)
        return plan / jnp.sum(plan, axis=0, keepdims=True), None

    plan, _ = jax.lax.scan(normalise, jnp.exp(-cost / epsilon), length=num_iters)
    return scale * jnp.sum(plan * cost)


def logit_mse(pair, *, temperature=1.0, amplitude=1.0):
    """mean_v (s / temperature - amplitude t / temperature)^2."""
    student, teacher = _rows(pair, "counted")
    return jnp.mean(jnp.square((student - amplitude * teacher) / temperature))


# --- parts ---


def _rows(pair, positions: Positions):
    chosen = {
        "counted": pair.counted,
        "all": np.ones_like(pair.counted),
        "padding": ~pair.counted,
    }[positions]
    return pair.student[chosen], pair.teacher[chosen]


def _predictions(pair, temperature=1.0, positions: Positions = "counted"):
    """log p and log q of the positions, [k v]."""
    student, teacher = _rows(pair, positions)
    return (
        jax.nn.log_softmax(student / temperature),
        jax.nn.log_softmax(teacher / temperature),
    )


def _kl(log_a, log_b):
    return jnp.sum(jnp.exp(log_a) * (log_a - log_b), axis=-1)


def _mean_of_means(losses, pair):
    sequence = np.nonzero(pair.counted)[0]
    numbers = pair.counted.sum(axis=1)
    return jnp.sum(losses / numbers[sequence]) / np.count_nonzero(numbers)


def _cosine(a, b, axis):
    norms = jnp.linalg.norm(a, axis=axis) * jnp.linalg.norm(b, axis=axis)
    return jnp.sum(a * b, axis=axis) / jnp.maximum(norms, 1e-8)


def _target_and_others(pair, temperature, labels):
    """TCKD and the teacher's mass beside the target; NCKD."""
    log_p, log_q = _predictions(pair, temperature)
    target = np.arange(log_p.shape[-1]) == labels[:, None]
    binary = [
        jnp.stack([on := jnp.sum(jnp.exp(x), -1, where=target), 1 - on], axis=-1)
        for x in (log_p, log_q)
    ]
    others = [jax.nn.log_softmax(x - 1000 * target) for x in (log_p, log_q)]
    tckd = _kl(jnp.log(binary[1]), jnp.log(binary[0]))
    return (tckd, binary[1][:, 1]), _kl(others[1], others[0])
