"""Lengths and directions from the smallest to the largest numbers of float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OPTIMIZED

from kd.features import CKA, NormAndDirection
from kd.features.norms import centred, distances, norm, unit

compiled = pytest.mark.parametrize("options", [{}, OPTIMIZED], ids=["", "optimized"])


@compiled
@pytest.mark.parametrize("of", [norm, unit, distances])
@pytest.mark.parametrize("size", [0.0, 1e-42])
def test_a_zero_vector_has_gradient_0(of, size, options):
    values = size * jnp.ones((3, 4), jnp.float32)

    @functools.partial(jax.jit, compiler_options=options)
    def value_and_gradient(values):
        return of(values), jax.grad(lambda x: jnp.sum(of(x)))(values)

    value, gradient = value_and_gradient(values)
    assert not value.any() and not gradient.any()


@compiled
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e19, 1e30])
def test_lengths_and_directions_at_any_scale(size, options):
    values = np.random.default_rng(0).normal(size=(5, 4))
    along = np.random.default_rng(1).normal(size=(5, 4))

    @functools.partial(jax.jit, compiler_options=options)
    def value_and_gradient(values):
        return (
            norm(values),
            jax.grad(lambda x: norm(x).sum())(values),
            *jax.vjp(unit, values)[1](jnp.float32(along)),
        )

    length, of_length, of_unit = value_and_gradient(jnp.float32(size * values))
    expected = np.linalg.norm(values, axis=1, keepdims=True)
    directions = values / expected
    np.testing.assert_allclose(length / np.float32(size), expected[:, 0], rtol=1e-5)
    np.testing.assert_allclose(of_length, directions, rtol=1e-5)
    across = along - directions * (along * directions).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        of_unit * np.float32(size), across / expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
@compiled
def test_classes_of_norm_and_direction_may_differ_in_scale(options):
    """And student from teacher, of whom the longer sets it."""
    random = np.random.default_rng(2)
    labels = np.arange(6) % 2
    sizes = np.where(labels == 0, 1e-20, 1e18)[:, None]
    student, teacher = random.normal(size=(2, 6, 3)) * sizes

    @functools.partial(jax.jit, compiler_options=options)
    def value_and_gradient(student, teacher):
        def total(student):
            loss = NormAndDirection(class_means="batch")
            losses = loss(student, teacher, labels=jnp.asarray(labels))
            return losses.sum(), losses

        gradient, losses = jax.grad(total, has_aux=True)(student)
        return losses, gradient

    losses, gradient = value_and_gradient(jnp.float32(student), jnp.float32(teacher))
    with jax.enable_x64(True):
        exact, slope = value_and_gradient(student, teacher)
    np.testing.assert_allclose(losses, exact, rtol=1e-5)
    gradient, slope = np.float64(gradient) * sizes, np.float64(slope) * sizes
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@compiled
def test_equal_features_are_centred_to_0(options):
    where = jnp.array([False, True, True, True])
    values = jnp.where(where[:, None], jnp.float32([0.1, -7.3, 1e4]), jnp.nan)

    @functools.partial(jax.jit, compiler_options=options)
    def value_and_gradient(values):
        other = jnp.arange(12.0).reshape(4, 3) ** 2
        return centred(values, where), jax.grad(
            lambda x: CKA()(x, other, where=where).sum()
        )(values)

    value, gradient = value_and_gradient(values)
    assert not value.any() and not gradient.any()
