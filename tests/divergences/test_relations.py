"""How the divergences are related, as their docstrings say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.divergences import (
    DIST,
    JS,
    KL,
    Alpha,
    ChiSquared,
    FDivergence,
    Hellinger,
    Jeffreys,
    Renyi,
    ReverseCrossEntropy,
    ReverseKL,
    SkewedKL,
    SkewedReverseKL,
    SoftCrossEntropy,
    Standardized,
    TotalVariation,
    ValueCorrelation,
)


@pytest.fixture
def logits(x64):
    random = np.random.default_rng(0)
    return tuple(jnp.asarray(2 * random.normal(size=(2, 6, 7))))


def agree(ours, theirs, logits, *, factor=1.0, rtol=1e-9):
    np.testing.assert_allclose(ours(*logits), factor * theirs(*logits), rtol=rtol)


@pytest.mark.parametrize(
    ("generator", "loss"),
    [
        (lambda t: t * jnp.log(t), KL()),
        (lambda t: -jnp.log(t), ReverseKL()),
        (lambda t: (t - 1) * jnp.log(t), Jeffreys()),
        (lambda t: jnp.abs(t - 1) / 2, TotalVariation()),
        (lambda t: (t * jnp.log(t) - (t + 1) * jnp.log((t + 1) / 2)) / 2, JS()),
        (lambda t: jnp.square(jnp.sqrt(t) - 1) / 2, Hellinger()),
        (lambda t: jnp.square(t - 1), ChiSquared()),
    ],
    ids=["kl", "reverse kl", "jeffreys", "total variation", "js", "hellinger", "chi"],
)
def test_named_divergences_have_these_generators(generator, loss, logits):
    ours = FDivergence(generator=generator)
    agree(ours, loss, logits)
    gradients = (
        jax.jit(jax.grad(lambda s, loss=loss: loss(s, logits[1]).sum()))(logits[0])
        for loss in (ours, loss)
    )
    np.testing.assert_allclose(*gradients, atol=1e-10)


def test_ratios_beyond_reach_saturate_unless_the_limit_is_given():
    def generator(t):
        return t * jnp.log(t)

    student = jnp.float32([[0.0, -jnp.inf]])
    teacher = jnp.float32([[0.0, 0.0]])
    held = FDivergence(generator=generator)(student, teacher)
    np.testing.assert_allclose(held, 0.5 * np.log(0.5) + 0.5 * 44.36, rtol=1e-3)
    exact = FDivergence(generator=generator, at_infinity=jnp.inf)(student, teacher)
    assert exact == jnp.inf == KL()(student, teacher)


def test_members_and_limits_of_the_alpha_family(logits):
    agree(Alpha(alpha=0.5), Hellinger(), logits, factor=4)
    agree(Alpha(alpha=2.0), ChiSquared(), logits, factor=0.5)
    agree(Alpha(alpha=-1.0), lambda s, t: ChiSquared()(t, s), logits, factor=0.5)
    for near_one in (Alpha(alpha=1 - 1e-7), Renyi(alpha=1 + 1e-7)):
        agree(near_one, KL(), logits, rtol=1e-5)
    agree(Alpha(alpha=1e-7), ReverseKL(), logits, rtol=1e-5)


def test_renyi_never_decreases_with_its_order(logits):
    losses = [Renyi(alpha=alpha)(*logits) for alpha in (0.2, 0.5, 0.9, 1.5, 4.0)]
    assert np.all(np.diff(losses, axis=0) > 0)


def test_skewed_divergences_tend_to_kl_and_are_bounded(logits):
    agree(SkewedKL(skew=1e-9), KL(), logits, rtol=1e-5)
    agree(SkewedReverseKL(skew=1e-9), ReverseKL(), logits, rtol=1e-5)
    student, teacher = 100 * logits[0], -100 * logits[0]
    for skewed in (SkewedKL(), SkewedReverseKL()):
        np.testing.assert_allclose(skewed(student, teacher), -np.log(0.1), rtol=1e-6)
    np.testing.assert_allclose(JS()(student, teacher), np.log(2), rtol=1e-6)


def test_cross_entropies_are_kl_and_an_entropy(logits):
    student, teacher = logits
    agree(
        SoftCrossEntropy(),
        lambda s, t: KL()(s, t) + SoftCrossEntropy()(t, t),
        logits,
    )
    agree(
        ReverseCrossEntropy(),
        lambda s, t: ReverseKL()(s, t) + SoftCrossEntropy()(s, s),
        logits,
    )
    gradients = (
        jax.grad(lambda s, loss=loss: loss(s, teacher).sum())(student)
        for loss in (KL(), SoftCrossEntropy())
    )
    np.testing.assert_allclose(*gradients, atol=1e-12)


def test_standardized_logits_may_have_any_scale_and_offset(logits):
    teacher = logits[1]
    standardized = Standardized(KL(), correction=1)
    agree(standardized, lambda s, t: standardized(3 * s - 1, 0.2 * t + 5), logits)
    assert np.allclose(standardized(2 * teacher, teacher), 0)
    assert np.all(KL()(2 * teacher, teacher) > 0.01)
    # As published: by n - 1.
    scaled = [z / z.std(axis=1, keepdims=True, ddof=1) for z in logits]
    np.testing.assert_allclose(standardized(*logits), KL()(*scaled), rtol=1e-9)


@pytest.mark.slow
def test_correlations_are_means_over_rows_and_columns(logits):
    p, q = (np.asarray(jax.nn.softmax(z)) for z in logits)

    def pearson(a, b):
        return np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)])

    np.testing.assert_allclose(DIST(intra=0.0)(*logits).mean(), 1 - pearson(p, q))
    np.testing.assert_allclose(DIST(inter=0.0)(*logits).mean(), 1 - pearson(p.T, q.T))

    def cosine(a, b):
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return np.mean(np.sum(a * b, axis=1) / lengths)

    np.testing.assert_allclose(
        ValueCorrelation(temperature=1.0)(*logits).mean(),
        2 - cosine(p, q) - cosine(p.T, q.T),
    )
