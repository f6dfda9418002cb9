"""What OptimalTransport can do beyond what every divergence can."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from kd import config
from kd.divergences import OptimalTransport, SinKD
from kd.transport.cost import SquaredL2
from kd.transport.fixed_iterations import FixedIterations
from kd.transport.ott_solvers import Converged, LowRank

TIGHT = Converged(threshold=1e-13, max_iters=1000)


def logits(seed, rows=8, classes=5):
    return np.random.default_rng(seed).normal(0, 2, (2, rows, classes))


@functools.partial(jax.jit, static_argnames="loss")
def value_and_gradient(loss, student, teacher, where=None):
    def mean(student):
        losses, metrics = loss.rows_with_metrics(student, teacher, where)
        return jnp.mean(losses), (losses, metrics)

    gradient, (losses, metrics) = jax.grad(mean, has_aux=True)(student)
    return losses, gradient, metrics


def l1_of(student, teacher):
    p, q = reference.softmax(student, 2.0), reference.softmax(teacher, 2.0)
    return np.abs(p[:, None] - q).sum(axis=-1)


def test_plan_is_that_of_ott(x64):
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    student, teacher = logits(0)
    cost = l1_of(student, teacher)
    theirs = Sinkhorn(threshold=1e-13, max_iterations=1000)
    for tau, solver in ((1.0, TIGHT), (0.7, TIGHT), (0.7, theirs)):
        # Their entropy knows no masses: a constant where these are given.
        shift = 0 if tau == 1 else 0.3 * np.log(8 * 8)
        geometry = Geometry(jnp.asarray(cost) + shift, epsilon=0.3)
        expected = jax.jit(theirs)(LinearProblem(geometry, tau_b=tau)).matrix
        loss = OptimalTransport(epsilon=0.3, solver=solver, tau_teacher=tau)
        plan, found_cost = jax.jit(loss.plan)(student, teacher)
        np.testing.assert_allclose(found_cost, cost, rtol=1e-12)
        np.testing.assert_allclose(plan, expected, rtol=1e-9)


def test_converged_is_the_limit_of_sinkd(x64):
    student, teacher = logits(1)
    where = np.arange(8) != 3
    found, _, metrics = value_and_gradient(
        OptimalTransport(epsilon=0.3, solver=TIGHT), student, teacher, where
    )
    limit = SinKD(epsilon=0.3, num_iters=1000, gradient="envelope")
    expected = jax.jit(limit)(student, teacher, where=where)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(metrics["transported_mass"], 1, rtol=1e-12)
    assert metrics["converged"] == 1

    short = OptimalTransport(epsilon=1e-3, solver=Converged(max_iters=20))
    assert value_and_gradient(short, student, teacher)[2]["converged"] == 0


def test_gradient_is_that_of_the_unbalanced_minimum(x64):
    taus, epsilon = (0.8, 0.6), 0.4
    rhos = [epsilon * tau / (1 - tau) for tau in taus]
    student, teacher = logits(2, rows=4, classes=3)
    mass = 1 / len(student)

    def kl(x, a):
        return np.sum(x * np.log(x / a) - x + a)

    def minimum(student):
        """Over all plans, by scaling vectors."""
        cost = l1_of(student, teacher)
        kernel = np.exp(-cost / epsilon) * mass**2
        u, v = np.ones(4), np.ones(4)
        for _ in range(200):
            u = (mass / (kernel @ v)) ** taus[0]
            v = (mass / (kernel.T @ u)) ** taus[1]
        plan = u[:, None] * kernel * v
        penalties = [rhos[0] * kl(plan.sum(axis=1), mass)]
        penalties.append(rhos[1] * kl(plan.sum(axis=0), mass))
        without_entropy = np.sum(plan * cost) + sum(penalties)
        return without_entropy, without_entropy + epsilon * kl(plan, mass**2)

    loss = OptimalTransport(
        epsilon=epsilon, solver=TIGHT, tau_student=taus[0], tau_teacher=taus[1]
    )
    losses, gradient, metrics = value_and_gradient(loss, student, teacher)
    np.testing.assert_allclose(losses.mean(), minimum(student)[0], rtol=1e-10)
    assert metrics["transported_mass"] < 0.95
    h = 1e-6
    for i, v in np.ndindex(student.shape):
        step = np.zeros_like(student)
        step[i, v] = h
        slope = (minimum(student + step)[1] - minimum(student - step)[1]) / (2 * h)
        np.testing.assert_allclose(gradient[i, v], slope, rtol=1e-5, atol=1e-9)


def test_what_is_far_away_is_left_alone():
    near = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 1, 1]] * 20
    far = near.copy()
    far[0] = [0, 0, 40]  # nothing of the teacher is near
    settings = {"epsilon": 0.1, "temperature": 1.0}
    balanced, unbalanced = (
        OptimalTransport(**settings, tau_student=tau, tau_teacher=tau)
        for tau in (1.0, 0.5)
    )
    losses, _, _ = value_and_gradient(balanced, far, near)
    assert losses[0] > 1.5
    losses, _, metrics = value_and_gradient(unbalanced, far, near)
    assert losses[0] < 0.2 and metrics["transported_mass"] < 0.95


@pytest.mark.slow
def test_low_rank_is_close_to_full_rank():
    # Two groups of predictions: the best plan is nearly of rank 2.
    centres = np.array([[3.0, 0, 0], [0, 3.0, 0]])[np.arange(24) % 2]
    student, teacher = (centres + 0.2 * logits(3, 24, 3)).astype(np.float32)
    exact = OptimalTransport(epsilon=0.02, solver=Converged(1e-4, 5000))
    where = np.arange(24) != 5
    expected = value_and_gradient(exact, student, teacher, where)
    low_rank = OptimalTransport(solver=LowRank(rank=4))
    losses, gradient, metrics = value_and_gradient(low_rank, student, teacher, where)
    plan, cost = jax.jit(low_rank.plan)(student, teacher, where=where)
    assert np.linalg.matrix_rank(plan, tol=1e-4 / 24) <= 4
    np.testing.assert_allclose(metrics["transported_mass"], 1, rtol=1e-3)
    # It costs more, but little of what everything to everywhere would.
    excess, rank_1 = losses.mean() - expected[0].mean(), 23 / 24 * cost.mean()
    assert 0 < excess < 0.1 * (rank_1 - expected[0].mean())
    cosine = np.vdot(gradient, expected[1]) / (
        np.linalg.norm(gradient) * np.linalg.norm(expected[1])
    )
    assert cosine > 0.7
    assert not losses[5] and not gradient[5].any()


def test_low_rank_where_there_is_nothing_to_transport():
    same = np.ones((8, 5), np.float32)
    losses, gradient, _ = value_and_gradient(
        OptimalTransport(solver=LowRank(rank=2)), same, same
    )
    assert not losses.any() and not gradient.any()


def test_other_costs_and_solvers(x64):
    student, teacher = logits(4)
    loss = OptimalTransport(cost=SquaredL2(), solver=FixedIterations(20))
    found, _, metrics = value_and_gradient(loss, student, teacher)
    expected = jax.jit(SinKD(cost=SquaredL2()))(student, teacher)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert "converged" not in metrics  # it runs as long as it is told to


@pytest.mark.slow
def test_what_cannot_be_is_refused():
    student, teacher = jnp.float32(logits(5))
    with pytest.raises(ValueError, match="low-rank plans are for balanced problems"):
        OptimalTransport(solver=LowRank(2), tau_student=0.5)(student, teacher)
    with pytest.raises(ValueError, match="FixedIterations solves balanced problems"):
        OptimalTransport(solver=FixedIterations(), tau_student=0.5)(student, teacher)
    for solver, settings in (
        (Converged, {"max_iters": 0}),
        (LowRank, {"rank": 2, "max_iters": 0}),
        (LowRank, {"rank": 0}),
    ):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            solver(**settings)


def test_solvers_can_be_recorded_and_set_from_the_command_line():
    mix = 1.0 * OptimalTransport(solver=LowRank(rank=4))
    changed = config.override(mix, "ot.solver.rank=8", "ot.tau_student=0.5")
    expected = OptimalTransport(solver=LowRank(rank=8), tau_student=0.5)
    assert changed == 1.0 * expected
    solver = config.to_json(changed)["ot"]["solver"]
    assert solver["class"] == "LowRank" and solver["rank"] == 8
