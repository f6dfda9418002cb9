"""Plans made feasible."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transport.problems import problem

from kd.transport.cost import L1
from kd.transport.diagnostics import marginal_error
from kd.transport.rounding import round_to_feasible
from kd.transport.solver import solve


@jax.jit
def few_iterations(x, y, a, b):
    return solve(L1()(x, y), a, b, epsilon=0.02, num_iters=2).plan


@pytest.mark.parametrize("masses", ["equal", "weighted", "masked"])
def test_rounded_plan_is_feasible_and_near(masses, x64):
    x, y, a, b = map(jnp.asarray, problem(masses))
    plan = few_iterations(x, y, a, b)
    error = marginal_error(plan, a, b)
    assert error > 1e-8  # or there would be nothing to round
    rounded = round_to_feasible(plan, a, b)
    assert np.all(rounded >= 0)
    np.testing.assert_allclose(marginal_error(rounded, a, b), 0, atol=1e-14)
    assert np.abs(rounded - plan).sum() <= 2 * error


@pytest.mark.slow
def test_cost_of_a_rounded_plan_bounds_the_exact_one(x64):
    from scipy.optimize import linear_sum_assignment

    x = np.random.default_rng(0).dirichlet(np.ones(3), (2, 6))
    cost, mass = L1()(*map(jnp.asarray, x)), jnp.full(6, 1 / 6)
    exact = np.asarray(cost)[linear_sum_assignment(cost)].mean()
    plan = solve(cost, mass, mass, epsilon=1e-3, num_iters=1).plan
    assert (
        jnp.sum(plan * cost)
        < exact - 1e-3
        < jnp.sum(round_to_feasible(plan, mass, mass) * cost)
    )


@pytest.mark.slow
def test_feasible_plans_stay_and_have_finite_gradients():
    a = jnp.asarray([0.5, 0.0, 0.5])
    plan = a[:, None] * a
    np.testing.assert_allclose(round_to_feasible(plan, a, a), plan, atol=1e-7)
    for start in (plan, jnp.zeros((3, 3))):
        slope = jax.grad(lambda p: jnp.sum(round_to_feasible(p, a, a) ** 2))(start)
        assert np.all(np.isfinite(slope))
