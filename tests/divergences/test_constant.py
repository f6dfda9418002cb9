"""Logits that are all equal: of a head that starts at 0, in the first step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OPTIMIZED

from kd.divergences import (
    DIST,
    KL,
    RankCorrelation,
    Standardized,
    ValueCorrelation,
)

compiled = pytest.mark.parametrize("options", [{}, OPTIMIZED], ids=["", "optimized"])
LOSSES = [DIST(), DIST(temperature=4.0), DIST(intra=0.0), RankCorrelation()]
sizes = pytest.mark.parametrize("shape", [(8, 3), (6, 1000)])
levels = pytest.mark.parametrize("level", [0.0, 0.1])


def both(loss, student, teacher, options):
    @functools.partial(jax.jit, compiler_options=options)
    def value_and_gradient(student):
        return jax.value_and_grad(lambda s: loss(s, teacher).mean())(student)

    return jax.device_get(value_and_gradient(student))


def teacher_logits(shape):
    # Also classes that the teacher all but rules out.
    scale = np.where(np.arange(shape[1]) % 3 == 0, 1.0, 5.0)
    shift = np.where(np.arange(shape[1]) % 3 == 1, -20.0, 0.0)
    noise = np.random.default_rng(0).normal(size=shape)
    return jnp.float32(scale * noise + shift)


@compiled
@levels
@sizes
@pytest.mark.parametrize("loss", [*LOSSES, ValueCorrelation()])
def test_gradients_are_bounded_and_lead_down(loss, shape, level, options):
    teacher = teacher_logits(shape)
    student = jnp.full(shape, level, jnp.float32)
    value, gradient = both(loss, student, teacher, options)
    assert np.isfinite(value)
    assert np.abs(gradient).max() < 10 and np.abs(gradient).max() > 1e-6
    moved, _ = both(
        loss, student - np.float32(0.1) * gradient / np.abs(gradient).max(), teacher,
        options,
    )  # fmt: skip
    assert moved < value - 1e-3


@compiled
@levels
def test_what_is_computed_at_a_constant_row(level, options):
    shape = (4, 5)
    teacher = teacher_logits(shape)
    q = np.asarray(jax.nn.softmax(teacher), np.float64)
    centred = q - q.mean(axis=1, keepdims=True)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    value, gradient = both(
        DIST(intra=0.0), jnp.full(shape, level, jnp.float32), teacher, options
    )
    np.testing.assert_allclose(value, 0.5, rtol=1e-6)
    # p = 1/5 and |p| = 1/sqrt(5); the derivative of p is p times what is centred.
    expected = -unit * (1 / 5) / (1 / np.sqrt(5)) / len(q)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@compiled
@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_pulls_where_the_teacher_is_constant_too(loss, options):
    constant = jnp.full((4, 5), 0.1, jnp.float32)
    value, gradient = both(loss, constant, constant, options)
    assert value == 0 and not gradient.any()


@compiled
@pytest.mark.parametrize("level", [0.0, 0.1, -7.3, 1e4])
@pytest.mark.parametrize("correction", [0, 1])
def test_standardized_equal_logits_are_0(level, correction, options):
    loss = Standardized(KL(), correction=correction)
    teacher = teacher_logits((4, 7))
    value, gradient = both(loss, jnp.full((4, 7), level), teacher, options)
    deviations = teacher.std(axis=1, ddof=correction, keepdims=True)
    standard = (teacher - teacher.mean(axis=1, keepdims=True)) / deviations
    expected, slope = both(KL(), jnp.zeros((4, 7)), standard, options)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6)
