"""Our solver in the place of OTT's, and OTT's as the judge of ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn
from transport.problems import problem

from kd.transport.cost import L1
from kd.transport.fixed_iterations import FixedIterations


def theirs(num_iters):
    """One block, because the unrolled gradient of several is wrong in OTT 0.6.0."""
    return Sinkhorn(
        threshold=-1.0,
        min_iterations=0,
        inner_iterations=num_iters,
        max_iterations=num_iters,
        implicit_diff=None,
    )


def linear_problem(x, y, a, b, *, epsilon=0.1, transpose=False):
    cost = L1()(x, y)
    if transpose:  # OTT normalises columns first
        return LinearProblem(Geometry(cost.T, epsilon=epsilon), b, a)
    return LinearProblem(Geometry(cost, epsilon=epsilon), a, b)


@pytest.mark.slow
@pytest.mark.parametrize("largest_cost", [20.0, float("inf")])
@pytest.mark.parametrize("masses", ["equal", "weighted"])
@pytest.mark.parametrize("num_iters", [1, 20])
def test_equals_ott_transposed(num_iters, masses, largest_cost, x64):
    x, y, a, b = map(jnp.asarray, problem(masses))
    weights = np.random.default_rng(0).normal(size=(5, 6))
    ours = FixedIterations(num_iters, largest_cost=largest_cost)

    @jax.jit
    def found(x):
        output = ours(linear_problem(x, y, a, b))
        return jnp.sum(weights * output.matrix), output

    @jax.jit
    def expected(x):
        output = theirs(num_iters)(linear_problem(x, y, a, b, transpose=True))
        return jnp.sum(weights * output.matrix.T), output

    (_, our), gradient = jax.value_and_grad(found, has_aux=True)(x)
    (_, their), their_gradient = jax.value_and_grad(expected, has_aux=True)(x)
    np.testing.assert_allclose(our.matrix, their.matrix.T, rtol=1e-10)
    np.testing.assert_allclose(our.reg_ot_cost, their.reg_ot_cost, rtol=1e-10)
    np.testing.assert_allclose(our.primal_cost, their.primal_cost, rtol=1e-10)
    np.testing.assert_allclose(gradient, their_gradient, rtol=1e-8, atol=1e-12)
    assert our.errors.shape == (num_iters,) and our.n_iters == num_iters
    np.testing.assert_allclose(our.marginal(0), b, rtol=1e-10)
    np.testing.assert_allclose(our.errors[-1], np.abs(our.marginal(1) - a).sum())


def test_either_solver_solves_the_problem(x64):
    x, y, a, b = map(jnp.asarray, problem("weighted"))

    @jax.jit
    def transport_cost(solver):
        return solver(linear_problem(x, y, a, b)).primal_cost

    ours, converged = FixedIterations(500), Sinkhorn(threshold=1e-12)
    np.testing.assert_allclose(
        transport_cost(ours), transport_cost(converged), rtol=1e-8
    )


def test_masked_problem(x64):
    x, y, a, b = map(jnp.asarray, problem("masked"))

    def cost(x):
        output = FixedIterations(20)(linear_problem(x, y, a, b))
        return jnp.sum(output.matrix * L1()(x, y)), (output.f, output.matrix)

    gradient, (f, matrix) = jax.jit(jax.grad(cost, has_aux=True))(x)
    assert np.all(f[a == 0] == -np.inf) and not matrix[a == 0].any()
    assert np.all(np.isfinite(gradient)) and not gradient[a == 0].any()


@pytest.mark.slow
def test_envelope_gradient_of_the_regularised_cost(x64):
    x, y, a, b = map(jnp.asarray, problem("weighted"))

    def cost(x, gradient):
        solver = FixedIterations(500, gradient=gradient)
        return solver(linear_problem(x, y, a, b)).reg_ot_cost

    np.testing.assert_allclose(
        jax.grad(cost)(x, "envelope"), jax.grad(cost)(x, "unrolled"), rtol=1e-8
    )


@pytest.mark.slow
def test_gradient_of_epsilon(x64):
    x, y, a, b = map(jnp.asarray, problem("weighted"))

    def cost(epsilon):
        return FixedIterations(20)(
            linear_problem(x, y, a, b, epsilon=epsilon)
        ).primal_cost

    h = 1e-6
    difference = (cost(0.1 + h) - cost(0.1 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(cost)(0.1), difference, rtol=1e-6)


def test_other_problems_are_refused():
    cost = Geometry(jnp.zeros((2, 2)), epsilon=0.1)
    with pytest.raises(ValueError, match="balanced problems"):
        FixedIterations()(LinearProblem(cost, tau_a=0.9))
    with pytest.raises(ValueError, match="omit init"):
        FixedIterations()(LinearProblem(cost), (jnp.zeros(2), jnp.zeros(2)))
