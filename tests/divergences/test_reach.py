"""Settings and logits at the end of what a dtype holds: right, or refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OPTIMIZED

from kd.divergences import (
    DIST,
    JS,
    KL,
    FDivergence,
    MultiLevelOT,
    OptimalTransport,
    SinKD,
    SinkhornDivergence,
    TotalVariation,
)
from kd.divergences.softened import log_softmax

compiled = pytest.mark.parametrize("options", [{}, OPTIMIZED], ids=["", "optimized"])


def value_and_gradient(loss, student, teacher, options):
    @functools.partial(jax.jit, compiler_options=options)
    def both(student, teacher):
        def total(student):
            losses = loss(student, teacher)
            return losses.sum(), losses

        gradient, losses = jax.grad(total, has_aux=True)(student)
        return losses, gradient

    return jax.device_get(both(student, teacher))


def signs(seed, size):
    """Logits of `size` and -`size`, of a student and of a teacher."""
    return size * np.sign(np.random.default_rng(seed).normal(size=(2, 8, 5)))


@compiled
@pytest.mark.parametrize("temperature", [3.0, 7.0, 0.7])
def test_softmax_of_huge_logits_is_exact(temperature, options):
    logits, _ = signs(0, 1e4)

    @functools.partial(jax.jit, compiler_options=options)
    def softmax(logits):
        return jnp.exp(log_softmax(logits, temperature))

    largest = logits > 0
    expected = largest / largest.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(jnp.float32(logits)), expected, rtol=1e-6)
    ruled_out = jnp.where(jnp.arange(5) < 2, jnp.float32(logits), -jnp.inf)
    assert np.all(softmax(ruled_out)[:, 2:] == 0)


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("temperature", [3.0, 7.0, 0.7])
@pytest.mark.parametrize("loss", [KL, JS, TotalVariation, DIST, SinKD])
def test_huge_logits_at_any_temperature_are_as_in_float64(loss, temperature, options):
    loss = loss(temperature=temperature)
    student, teacher = signs(6, 1e4)
    found = value_and_gradient(
        loss, jnp.float32(student), jnp.float32(teacher), options
    )
    with jax.enable_x64(True):
        exact = value_and_gradient(loss, student, teacher, options)
    for ours, theirs in zip(found, exact, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * scale)


GENERATORS = [
    lambda t: jnp.exp(t) - np.e * t,
    lambda t: jnp.exp(1 / t) - np.e,
    lambda t: t**6 - 1,
    lambda t: t**-6 - 1,
    lambda t: (t - 1) ** 2,
]


@compiled
@pytest.mark.parametrize("limits", [{}, {"at_zero": 1.0, "at_infinity": 2.0}])
@pytest.mark.parametrize("number", range(len(GENERATORS)))
def test_generators_that_overflow_are_held_before(number, limits, options):
    loss = FDivergence(temperature=3.0, generator=GENERATORS[number], **limits)
    student, teacher = signs(1, 1e4).astype(np.float32)
    one_hot = np.where(student == student.max(axis=1, keepdims=True), 0, -np.inf)
    moderate = np.float32(np.random.default_rng(2).normal(size=(8, 5)))
    for pair in (
        (student, teacher),
        (np.float32(one_hot), moderate),
        (moderate, np.float32(one_hot)),
    ):
        found = value_and_gradient(loss, *pair, options)
        assert np.all(np.isfinite(found[0])) and np.all(np.isfinite(found[1]))


def test_within_its_reach_a_generator_that_grows_fast_is_exact(x64):
    student, teacher = np.random.default_rng(3).normal(size=(2, 8, 5))
    p, q = (
        np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (student, teacher)
    )
    losses = FDivergence(generator=GENERATORS[0])(
        jnp.asarray(student), jnp.asarray(teacher)
    )
    expected = (p * (np.exp(q / p) - np.e * q / p)).sum(axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)


@pytest.mark.parametrize("loss", [SinKD, SinkhornDivergence, OptimalTransport])
@pytest.mark.parametrize("shape", [(8, 5), (160, 2)])
@pytest.mark.parametrize("epsilon", [2e-7, 1e-12, 1e-46])
def test_an_epsilon_that_is_lost_in_rounding_is_refused(loss, shape, epsilon):
    student, teacher = jnp.float32(np.random.default_rng(4).normal(size=(2, *shape)))
    with pytest.raises(ValueError, match=r"at least 2\.4e-07 with logits"):
        loss(epsilon=epsilon)(student, teacher)


@pytest.mark.slow
def test_of_float64_or_sequences_likewise(x64):
    student, teacher = np.random.default_rng(4).normal(size=(2, 8, 5))
    loss = SinKD(epsilon=1e-7)
    losses, gradient = value_and_gradient(loss, student, teacher, {})
    assert np.all(np.isfinite(losses)) and np.all(np.isfinite(gradient))
    with pytest.raises(ValueError, match="MultiLevelOT: epsilon must be at least"):
        MultiLevelOT(epsilon=1e-17)(jnp.asarray([student]), jnp.asarray([teacher]))
