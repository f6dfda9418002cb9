"""Which map each gradient mode differentiates, and how far apart they are."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transport.problems import COSTS, definition, entropic_cost, problem

from kd.transport.cost import L1
from kd.transport.solver import solve

EPSILON = 0.3


@functools.partial(
    jax.jit, static_argnames=("cost", "gradient", "num_iters", "epsilon")
)
def slope(x, y, a, b, weights, *, cost, gradient, num_iters, epsilon):
    """Of sum(weights * plan), or of sum(cost * plan) where there are no weights."""

    def total(x):
        ground = cost(x, y)
        plan = solve(
            ground, a, b, epsilon=epsilon, num_iters=num_iters, largest_cost=2.0,
            gradient=gradient,
        ).plan  # fmt: skip
        return jnp.sum((ground if weights is None else weights) * plan)

    return jax.grad(total)(x)


@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "envelope"])
@pytest.mark.parametrize("cost", COSTS, ids=str)
def test_finite_differences(cost, gradient, x64):
    random = np.random.default_rng(1)
    weights = random.normal(size=(5, 6))
    num_iters = 3 if gradient == "unrolled" else 400  # only one of them can stop early
    envelope = gradient == "envelope"

    def slow(x, y, a, b):
        ground = COSTS[cost](x[:, None], y[None])
        plan = definition(ground, a, b, epsilon=EPSILON, num_iters=num_iters)
        if envelope:
            return entropic_cost(plan, ground, a, b, epsilon=EPSILON)
        return np.sum(weights * plan)

    for masses in ("equal", "weighted", "masked"):
        x, *rest = problem(masses)
        found = slope(
            x, *rest, None if envelope else weights,
            cost=cost, gradient=gradient, num_iters=num_iters, epsilon=EPSILON,
        )  # fmt: skip
        for _ in range(3):
            step = 1e-6 * random.normal(size=x.shape)
            difference = (slow(x + step, *rest) - slow(x - step, *rest)) / 2
            np.testing.assert_allclose(
                np.sum(found * step), difference, rtol=1e-6, atol=1e-15
            )


def gradients(num_iters, modes, epsilon=0.1):
    """Of sum(plan * cost) with respect to x, by mode."""
    x, y, a, b = map(jnp.asarray, problem("equal"))
    return {
        gradient: np.asarray(
            slope(
                x, y, a, b, None,
                cost=L1(), gradient=gradient, num_iters=num_iters, epsilon=epsilon,
            )
        )
        for gradient in modes
    }  # fmt: skip


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_unrolled_tends_to_implicit(x64):
    apart = [
        distance(*gradients(num_iters, ("unrolled", "implicit")).values())
        for num_iters in (5, 20, 320)
    ]
    for fewer, more in itertools.pairwise(apart):
        assert more < 0.5 * fewer
    assert apart[-1] < 1e-9


def test_envelope_is_another_gradient_altogether(x64):
    # It leaves out how the plan changes, and no number of iterations makes up for it.
    found = gradients(320, ("unrolled", "envelope"))
    assert 0.1 < distance(found["envelope"], found["unrolled"]) < 1


@pytest.mark.parametrize("largest_cost", [2.0, float("inf")])
def test_implicit_potentials_have_gradients_too(largest_cost, x64):
    x, y, a, b = map(jnp.asarray, problem("weighted"))

    def dual(x, gradient):
        solution = solve(
            L1()(x, y), a, b, epsilon=EPSILON, num_iters=400,
            largest_cost=largest_cost, gradient=gradient,
        )  # fmt: skip
        return a @ solution.f + b @ solution.g, solution.plan

    pull_of = jax.jit(jax.grad(dual, has_aux=True), static_argnums=1)
    pull = {mode: pull_of(x, mode) for mode in ("unrolled", "implicit")}
    np.testing.assert_allclose(pull["implicit"][0], pull["unrolled"][0], rtol=1e-9)
    # And that of the dual value is the plan.
    _, plan = pull["unrolled"]
    expected = jax.grad(lambda x: jnp.sum(plan * L1()(x, y)))(x)
    np.testing.assert_allclose(pull["unrolled"][0], expected, rtol=1e-9)


def test_implicit_gradient_of_masses_up_to_a_constant(x64):
    # Masses can only move together: what changes both sides alike says nothing.
    x, y, a, b = map(jnp.asarray, problem("weighted"))

    def total(a, b, gradient):
        plan = solve(
            L1()(x, y), a, b, epsilon=EPSILON, num_iters=400, gradient=gradient
        ).plan
        return jnp.sum(plan**2)

    slope_of = jax.jit(jax.grad(total, (0, 1)), static_argnums=2)
    unrolled, implicit = slope_of(a, b, "unrolled"), slope_of(a, b, "implicit")
    offset = unrolled[0][0] - implicit[0][0]
    np.testing.assert_allclose(unrolled[0], implicit[0] + offset, rtol=1e-8)
    np.testing.assert_allclose(unrolled[1], implicit[1] - offset, rtol=1e-8)


@pytest.mark.slow
def test_implicit_is_stable_in_float32():
    # Within the rounding of float32 of what float64 finds, on a problem whose linear
    # system has a condition number of some thousands.
    exact = {}
    for enabled in (True, False):
        with jax.enable_x64(enabled):
            exact[enabled] = gradients(2000, ("implicit",), 0.03)["implicit"]
    assert exact[False].dtype == np.float32
    assert distance(exact[False], exact[True]) < 0.02
