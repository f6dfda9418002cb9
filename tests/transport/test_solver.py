"""The plan and its unrolled gradient, in both domains."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transport.problems import definition, problem

from kd.transport import kernel_domain, log_domain
from kd.transport.cost import L1
from kd.transport.solver import solve

every_domain = pytest.mark.parametrize(
    "largest_cost", [2.0, float("inf")], ids=["kernel", "log"]
)
every_mass = pytest.mark.parametrize("masses", ["equal", "weighted", "masked"])


SETTINGS = ("epsilon", "num_iters", "largest_cost", "gradient")
jitted_solve = jax.jit(solve, static_argnames=SETTINGS)


def l1(x, y):
    return np.abs(x[:, None] - y[None]).sum(axis=-1)


@every_mass
@every_domain
@pytest.mark.parametrize("epsilon, num_iters", [(0.1, 1), (0.1, 20)])
def test_plan_is_that_of_the_definition(epsilon, num_iters, largest_cost, masses, x64):
    x, y, a, b = problem(masses)
    settings = {"epsilon": epsilon, "num_iters": num_iters}
    cost = l1(x, y)
    expected = definition(cost, a, b, **settings)
    found = jitted_solve(cost, a, b, largest_cost=largest_cost, **settings)
    np.testing.assert_allclose(found.plan, expected, rtol=1e-12, atol=1e-15)
    from_potentials = np.exp((found.f[:, None] + found.g - cost) / epsilon)
    exist = (a > 0)[:, None] & (b > 0)
    np.testing.assert_allclose(np.where(exist, from_potentials, 0), expected)
    assert not found.f[a == 0].any() and not found.g[b == 0].any()


@every_mass
@every_domain
def test_errors_are_those_of_the_row_sums(largest_cost, masses, x64):
    x, y, a, b = problem(masses)
    cost = l1(x, y)
    found = jitted_solve(
        cost, a, b, epsilon=0.1, num_iters=7, largest_cost=largest_cost
    )
    for t, error in enumerate(found.errors, start=1):
        plan = definition(cost, a, b, epsilon=0.1, num_iters=t)
        np.testing.assert_allclose(error, np.abs(plan.sum(axis=1) - a).sum())


@every_domain
@pytest.mark.parametrize("epsilon, num_iters", [(0.1, 20), (1.0, 2)])
def test_gradient_is_that_of_every_operation(epsilon, num_iters, largest_cost, x64):
    # Of the same iterations as a loop that JAX differentiates itself.
    random = np.random.default_rng(5)
    on_plan, on_f, on_g = (random.normal(size=s) for s in [(5, 6), (5,), (6,)])

    def plain(cost, a, b):
        kernel = jnp.where((a > 0)[:, None] & (b > 0), jnp.exp(-cost / epsilon), 0)

        def normalise(_, scaling):
            u = a / jnp.where(a > 0, kernel @ scaling[1], 1)
            return u, b / jnp.where(b > 0, kernel.T @ u, 1)

        start = (jnp.zeros_like(a), jnp.ones_like(b))
        u, v = jax.lax.fori_loop(0, num_iters, normalise, start)
        logs = [epsilon * jnp.log(jnp.where(s > 0, s, 1)) for s in (u, v)]
        return u[:, None] * kernel * v, *logs

    def ours(cost, a, b):
        solution = solve(
            cost, a, b, epsilon=epsilon, num_iters=num_iters, largest_cost=largest_cost
        )
        return solution[:3]

    def gradient(way):
        def total(cost, a, b):
            plan, f, g = way(cost, a, b)
            return jnp.sum(on_plan * plan) + on_f @ f + on_g @ g

        return jax.grad(total, (0, 1, 2))

    both = jax.jit(lambda *args: (gradient(ours)(*args), gradient(plain)(*args)))
    for masses in ("equal", "weighted", "masked"):
        x, y, a, b = problem(masses)
        for found, expected in zip(*both(l1(x, y), a, b), strict=True):
            largest = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12 * largest)


@every_domain
def test_rows_and_columns_without_mass_are_as_good_as_absent(largest_cost, x64):
    x, y, a, b = problem("masked")
    cost = l1(x, y)
    exist = (a > 0)[:, None] & (b > 0)
    inside = np.ix_(a > 0, b > 0)

    @jax.jit
    def value_and_gradient(cost, a, b):
        def total(cost):
            plan = solve(
                cost, a, b, epsilon=0.1, num_iters=20, largest_cost=largest_cost
            ).plan
            return jnp.sum(plan**2), plan

        (_, plan), gradient = jax.value_and_grad(total, has_aux=True)(cost)
        return plan, gradient

    clean = value_and_gradient(cost[inside], a[a > 0], b[b > 0])
    for garbage in (0.0, 1e30, np.inf, np.nan):
        dirty = value_and_gradient(np.where(exist, cost, garbage), a, b)
        for found, expected in zip(dirty, clean, strict=True):
            np.testing.assert_allclose(found[inside], expected, rtol=1e-12)
            assert not found[~exist].any()


def test_backward_pass_keeps_vectors_of_every_iteration_and_no_matrices():
    n, m = 40, 30

    def kept(iterate, num_iters):
        arrays = jnp.ones((n, m)), jnp.ones(n), jnp.ones(m)
        _, pull = jax.vjp(lambda *arrays: iterate(*arrays, num_iters), *arrays)
        return sum(leaf.size for leaf in jax.tree.leaves(pull))

    for iterate in (kernel_domain.scaling_vectors, log_domain.potentials):
        assert kept(iterate, 50) == n * m + (1 + 50) * (n + m)


@functools.partial(jax.jit, static_argnums=(5, 6))
def plan_and_gradient(x, y, a, b, weights, epsilon, largest_cost):
    def total(x):
        plan = solve(
            L1()(x, y), a, b, epsilon=epsilon, num_iters=20, largest_cost=largest_cost
        ).plan
        return jnp.sum(weights * plan), plan

    (_, plan), gradient = jax.value_and_grad(total, has_aux=True)(x)
    return plan, gradient


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), epsilon=st.sampled_from([0.05, 0.3]))
def test_domains_agree_in_float32(seed, epsilon):
    assert 2.0 / epsilon <= kernel_domain.LARGEST_SAFE_EXPONENT
    x, y, a, b = (np.float32(array) for array in problem("weighted", seed))
    random = np.random.default_rng(seed)
    weights = np.float32(random.normal(size=(5, 6)))

    plan, gradient = plan_and_gradient(x, y, a, b, weights, epsilon, 2.0)
    log_plan, log_gradient = plan_and_gradient(
        x, y, a, b, weights, epsilon, float("inf")
    )
    np.testing.assert_allclose(plan, log_plan, rtol=1e-3, atol=1e-6)
    largest = np.abs(log_gradient).max()
    np.testing.assert_allclose(gradient, log_gradient, rtol=1e-3, atol=1e-3 * largest)


@every_domain
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_properties(largest_cost, seed):
    random = np.random.default_rng(seed)
    x, y, a, b = (array.astype(np.float32) for array in problem("masked", seed))
    cost = l1(x, y)

    def plan(cost, a, b, factor=1.0):
        found = jitted_solve(
            cost, a, b, epsilon=0.2 * factor, num_iters=30,
            largest_cost=factor * largest_cost,
        )  # fmt: skip
        return np.asarray(found.plan)

    found = plan(cost, a, b)
    close = {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_allclose(found.sum(axis=0), b, **close)
    assert np.all(found >= 0)
    rows, columns = random.permutation(5), random.permutation(6)
    np.testing.assert_allclose(
        plan(cost[rows][:, columns], a[rows], b[columns]),
        found[rows][:, columns],
        **close,
    )
    # Units of the cost cancel, and so does a constant.
    np.testing.assert_allclose(plan(100 * cost, a, b, 100.0), found, **close)
    np.testing.assert_allclose(plan(cost + 1, a, b), found, **close)
    # Transposed it starts with the other side, which is forgotten: at epsilon 1 an
    # iteration brings plans nearer by tanh(1)^2 at least, for costs from 0 to 2.
    transposed = plan(cost.T, b, a, 5.0).T
    np.testing.assert_allclose(transposed, plan(cost, a, b, 5.0), **close)


@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "envelope"])
@pytest.mark.parametrize("epsilon", [1e-3, 1 / 30, 0.05, 10.0])
def test_float32_stays_finite(epsilon, gradient):
    mass = jnp.full(8, 1 / 8)

    @jax.jit
    @jax.value_and_grad
    def total(x, y):
        cost = L1()(jax.nn.softmax(x), jax.nn.softmax(y))
        plan = solve(
            cost, mass, mass, epsilon=epsilon, num_iters=20, largest_cost=2.0,
            gradient=gradient,
        ).plan  # fmt: skip
        return jnp.sum(plan * cost)

    logits = np.random.default_rng(0).normal(size=(2, 8, 3))
    for scale in (1.0, 1e4, 0.0):  # soft, one-hot, all alike
        value, slope = total(*(scale * logits).astype(np.float32))
        assert 0 <= value <= 2 + 1e-5 and np.all(np.isfinite(slope))


@pytest.mark.parametrize("n, m", [(1, 1), (1, 3), (2, 1), (2, 2)])
@every_domain
def test_smallest_problems(n, m, largest_cost, x64):
    random = np.random.default_rng(0)
    cost, a, b = random.random((n, m)), np.full(n, 1 / n), np.full(m, 1 / m)
    found = jitted_solve(
        cost, a, b, epsilon=0.5, num_iters=200, largest_cost=largest_cost
    )
    np.testing.assert_allclose(found.plan.sum(axis=1), a)
    np.testing.assert_allclose(found.plan.sum(axis=0), b)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_lifted(dtype):
    x, y, a, b = problem("equal")
    half = [jnp.asarray(array, dtype) for array in (l1(x, y), a, b)]
    found = jitted_solve(*half, epsilon=0.1, num_iters=20)
    lifted = [array.astype(jnp.float32) for array in half]
    exact = jitted_solve(*lifted, epsilon=0.1, num_iters=20)
    assert found.plan.dtype == jnp.float32
    np.testing.assert_array_equal(found.plan, exact.plan)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"epsilon": 0.0}, "epsilon must be positive, got 0.0"),
        ({"epsilon": float("nan")}, "epsilon must be positive"),
        ({"num_iters": 0}, "num_iters must be at least 1, got 0"),
        ({"gradient": "exact"}, "gradient is .* got 'exact'"),
        ({"row_mass": jnp.ones(3)}, r"cost of shape \(2, 2\) needs masses"),
    ],
)
def test_bad_input_is_refused(wrong, message, monkeypatch):
    # The tests' type checker would be the first to complain.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    right = {
        "cost": jnp.zeros((2, 2)),
        "row_mass": jnp.full(2, 0.5),
        "column_mass": jnp.full(2, 0.5),
        "epsilon": 0.1,
        "num_iters": 20,
    }
    with pytest.raises(ValueError, match=message):
        solve(**right | wrong)
