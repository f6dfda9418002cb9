"""Values, gradients, ties and memory of the ground costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OPTIMIZED
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import jaxprs_in_params

from kd.transport.cost import L1, Cosine, Minkowski, SquaredL2

DEFINITIONS = {
    L1(): lambda x, y: jnp.abs(x - y).sum(),
    Minkowski(1.0): lambda x, y: jnp.abs(x - y).sum(),
    Minkowski(2.0): lambda x, y: jnp.sqrt(jnp.square(x - y).sum()),
    Minkowski(3.5): lambda x, y: (jnp.abs(x - y) ** 3.5).sum() ** (1 / 3.5),
    SquaredL2(): lambda x, y: jnp.square(x - y).sum(),
    Cosine(): lambda x, y: 1 - (x @ y) / jnp.sqrt((x @ x) * (y @ y)),
}
JITTED = {cost: jax.jit(cost) for cost in DEFINITIONS}
every_cost = pytest.mark.parametrize("cost", DEFINITIONS, ids=str)


def points(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def pairwise(definition):
    return jax.vmap(jax.vmap(definition, (None, 0)), (0, None))


# One tile; a whole number of tiles along one axis, a broken one along the other.
@pytest.mark.parametrize("n, m, v", [(3, 5, 2), (17, 32, 33)])
@every_cost
def test_value_and_gradient_are_those_of_the_definition(cost, n, m, v, x64):
    def value_and_gradients(between, x, y, weights):
        value, pull = jax.vjp(between, x, y)
        return value, pull(weights)

    @jax.jit
    def both(*arrays):
        return tuple(
            value_and_gradients(between, *arrays)
            for between in (pairwise(DEFINITIONS[cost]), cost)
        )

    expected, found = both(points(0, n, v), points(1, m, v), points(2, n, m))
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("n, v", [(8, 5), (20, 5), (8, 20)])
def test_predictions_against_themselves_as_users_compile_them(n, v):
    # Fused with the softmax before it, x - x would be a rounding error with a sign.
    logits, weights = (
        points(i, *shape).astype(np.float32) for i, shape in enumerate([(n, v), (n, n)])
    )

    def total(logits):
        p = jax.nn.softmax(logits)
        return jnp.sum(weights * L1()(p, p))

    found = jax.jit(jax.grad(total), compiler_options=OPTIMIZED)(logits)
    p, pull = jax.vjp(jax.nn.softmax, logits)
    signs = np.sign(np.asarray(p)[:, None] - np.asarray(p)[None, :])
    (expected,) = pull(np.einsum("ij,ijv->iv", weights + weights.T, signs))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@every_cost
def test_points_that_agree_have_no_gradient(cost):
    x = jnp.asarray([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.0, 0.0, 1.0]])

    def total(x):
        return jnp.trace(cost(x, x))

    value, gradient = jax.jit(jax.value_and_grad(total))(x)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_entries_that_agree_have_no_gradient():
    x, y = jnp.asarray([[0.2, 0.3, 0.5]]), jnp.asarray([[0.2, 0.5, 0.3]])
    gradient = jax.grad(lambda x: L1()(x, y).sum())(x)
    np.testing.assert_array_equal(gradient, [[0, -1, 1]])


@every_cost
def test_nothing_as_large_as_every_point_times_every_point_times_classes(cost):
    n, m, v = 20, 30, 100

    def value_and_gradients(x, y, weights):
        value, pull = jax.vjp(cost, x, y)
        return value, pull(weights)

    shapes = ((n, v), (m, v), (n, m))
    jaxpr = jax.make_jaxpr(value_and_gradients)(*map(jnp.zeros, shapes))
    assert max(sizes(jaxpr.jaxpr)) <= 1.2 * max(n * m, m * v)


def sizes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from sizes(inner)


@every_cost
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sharpness=st.sampled_from([0.01, 1.0, 100.0]))
def test_between_probabilities(cost, seed, sharpness):
    x = np.float32(np.random.default_rng(seed).dirichlet([1 / sharpness] * 5, 4))
    y = np.float32(np.random.default_rng(seed + 1).dirichlet([1 / sharpness] * 5, 4))
    jitted = JITTED[cost]
    found = jitted(x, y)
    np.testing.assert_allclose(found, jitted(y, x).T, atol=1e-6)
    assert np.all(found >= -1e-6)
    assert np.all(found <= cost.largest_between_probabilities + 1e-5)


@every_cost
def test_half_precision_is_lifted(cost):
    x, y = jnp.bfloat16(points(3, 4, 5)), jnp.bfloat16(points(4, 4, 5))
    found = JITTED[cost](x, y)
    assert found.dtype == jnp.float32
    exact = JITTED[cost](x.astype(jnp.float32), y.astype(jnp.float32))
    np.testing.assert_array_equal(found, exact)


def test_cosine_of_nothing_is_one():
    x = jnp.zeros((1, 3))
    total = jax.jit(jax.value_and_grad(lambda x: Cosine()(x, jnp.ones((1, 3))).sum()))
    value, gradient = total(x)
    assert value == 1 and not gradient.any()


@pytest.mark.parametrize("p", [0.5, float("inf"), float("nan")])
def test_powers_that_make_no_distance_are_refused(p):
    with pytest.raises(ValueError, match="p must be finite and at least 1"):
        Minkowski(p)
