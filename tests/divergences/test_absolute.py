"""Absolute values where student and teacher agree in some classes and not in all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OPTIMIZED

from kd.divergences import ULD, FDivergence, TotalVariation
from kd.divergences.absolute import absolute_difference

compiled = pytest.mark.parametrize("options", [{}, OPTIMIZED], ids=["", "optimized"])


@compiled
def test_the_slope_is_0_at_a_tie_and_the_sign_elsewhere(options):
    x = jnp.float32([1.0, 2.0, 3.0, np.inf, -np.inf, np.nan, 0.0])
    y = jnp.float32([1.0, 3.0, 2.0, np.inf, 0.0, 0.0, -0.0])

    @functools.partial(jax.jit, compiler_options=options)
    def both(x, y):
        return absolute_difference(x, y), *jax.grad(
            lambda x, y: absolute_difference(x, y).sum(), argnums=(0, 1)
        )(x, y)

    value, of_x, of_y = both(x, y)
    np.testing.assert_array_equal(value, [0, 1, 1, 0, np.inf, np.nan, 0])
    np.testing.assert_array_equal(of_x[:5], [0, -1, 1, 0, -1])
    np.testing.assert_array_equal(of_y, -of_x)


def total_variation_generator(t):
    return absolute_difference(t, jnp.ones_like(t)) / 2


@compiled
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("loss", [TotalVariation, FDivergence])
def test_total_variation_where_a_class_agrees(loss, temperature, options):
    """The teacher exchanges two classes, so that the first agrees to the last bit."""
    student, teacher = jnp.float32([[1.0, 0.0, 2.0]]), jnp.float32([[1.0, 2.0, 0.0]])
    if loss is TotalVariation:
        loss = TotalVariation(temperature=temperature)
    else:
        loss = FDivergence(
            temperature=temperature,
            temperature_squared=False,
            generator=total_variation_generator,
        )

    @functools.partial(jax.jit, compiler_options=options)
    def value_and_gradient(student):
        return jax.value_and_grad(lambda s: loss(s, teacher).sum())(student)

    value, gradient = value_and_gradient(student)
    p = np.exp(np.array([1.0, 0.0, 2.0]) / temperature)
    p /= p.sum()
    slope = np.array([0, -0.5, 0.5])
    np.testing.assert_allclose(value, p[2] - p[1], rtol=1e-5)
    expected = p * (slope - p @ slope) / temperature
    np.testing.assert_allclose(gradient, expected[None], rtol=1e-4)


@compiled
def test_uld_where_a_class_agrees(options):
    student = jnp.log(jnp.float32([[[0.5, 0.375, 0.125]]]))
    teacher = jnp.log(jnp.float32([[[0.5, 0.5, 0.0]]]))

    @functools.partial(jax.jit, compiler_options=options)
    def value_and_gradient(student):
        return jax.value_and_grad(lambda s: ULD()(s, teacher).sum())(student)

    value, gradient = value_and_gradient(student)
    np.testing.assert_allclose(value, 0.25, rtol=1e-5)
    p, slope = np.array([0.5, 0.375, 0.125]), np.array([0, -1, 1])
    np.testing.assert_allclose(gradient[0, 0], p * (slope - p @ slope), atol=1e-5)
