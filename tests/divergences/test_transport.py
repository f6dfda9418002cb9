"""What SinKD and SinkhornDivergence can do beyond what every divergence can."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.divergences import SinKD, SinkhornDivergence
from kd.train.mesh import data_mesh, shard_batch
from kd.transport.cost import SquaredL2


def logits(seed, rows=8, classes=3):
    return np.random.default_rng(seed).normal(0, 2, (2, rows, classes))


@functools.partial(jax.jit, static_argnames="loss")
def value_and_gradient(loss, student, teacher, where=None):
    def mean(student):
        losses = loss(student, teacher, where=where)
        return jnp.mean(losses), losses

    (_, losses), gradient = jax.value_and_grad(mean, has_aux=True)(student)
    return losses, gradient


# --- groups -------------------------------------------------------------------


@pytest.mark.parametrize("loss", [SinKD, SinkhornDivergence])
def test_a_group_is_a_batch_of_its_own(loss, x64):
    student, teacher = logits(0)
    where = np.array([True] * 5 + [False, True, True])
    losses, gradient = value_and_gradient(loss(num_groups=2), student, teacher, where)
    for rows in (slice(0, 4), slice(4, 8)):
        alone, alone_gradient = value_and_gradient(
            loss(), student[rows], teacher[rows], where[rows]
        )
        np.testing.assert_allclose(losses[rows], alone, rtol=1e-9)
        np.testing.assert_allclose(
            gradient[rows], alone_gradient / 2, rtol=1e-9, atol=1e-15
        )


def test_a_group_without_rows_is_nothing():
    student, teacher = np.float32(logits(1))
    where = np.arange(8) < 4
    losses, gradient = value_and_gradient(SinKD(num_groups=2), student, teacher, where)
    assert losses[:4].all() and not losses[4:].any()
    assert np.all(np.isfinite(gradient)) and not gradient[4:].any()


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="8 cannot be cut into 3 equal groups"):
        SinKD(num_groups=3)(*jnp.float32(logits(2)))
    with pytest.raises(ValueError, match="4 cannot be cut into 8"):
        SinKD(num_groups=8)(*jnp.float32(logits(2, rows=4)))
    with pytest.raises(ValueError, match="num_groups must be at least 1"):
        SinKD(num_groups=0)


# --- devices ------------------------------------------------------------------


@pytest.mark.parametrize("num_devices", [1, 2, 4])
@pytest.mark.parametrize("num_groups", [1, 4])
@pytest.mark.parametrize("epsilon", [0.1, 0.02])  # kernel domain, log domain
def test_devices_do_not_change_it(epsilon, num_groups, num_devices):
    loss = SinKD(num_groups=num_groups, epsilon=epsilon)
    student, teacher = np.float32(logits(3))
    where = np.array([True] * 6 + [False, True])
    expected = value_and_gradient(loss, student, teacher, where)
    mesh = data_mesh(jax.devices()[:num_devices])
    found = value_and_gradient(loss, *shard_batch((student, teacher, where), mesh))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_groups", [1, 4])
def test_groups_on_devices_of_their_own_do_not_talk(num_groups):
    mesh = data_mesh()
    student, teacher = shard_batch(tuple(np.float32(logits(4))), mesh)
    loss = SinKD(num_groups=num_groups)
    program = jax.jit(jax.grad(lambda s, t: loss(s, t).sum())).lower(student, teacher)
    talks = any(word in program.compile().as_text() for word in COLLECTIVES)
    assert talks == (num_groups == 1)


COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute")

# --- gradient modes, costs, diagnostics -----------------------------------------


def test_gradient_modes_share_the_value(x64):
    student, teacher = logits(5)
    found = {
        mode: value_and_gradient(SinKD(gradient=mode), student, teacher)
        for mode in ("unrolled", "implicit", "envelope")
    }
    losses, unrolled = found["unrolled"]
    np.testing.assert_allclose(losses, reference.sinkd(student, teacher), rtol=1e-12)
    size = np.linalg.norm(unrolled)
    for mode, least, most in (("implicit", 1e-9, 0.02), ("envelope", 0.02, 1.0)):
        np.testing.assert_allclose(found[mode][0], losses, rtol=1e-12)
        assert least < np.linalg.norm(found[mode][1] - unrolled) / size < most


def test_envelope_holds_the_plan_constant(x64):
    student, teacher = jnp.asarray(logits(6))
    plan, _ = SinKD().plan(student, teacher)

    def cost(student):
        p, q = jax.nn.softmax(student / 2), jax.nn.softmax(teacher / 2)
        return jnp.sum(plan * jnp.abs(p[:, None] - q).sum(axis=-1))

    _, found = value_and_gradient(SinKD(gradient="envelope"), student, teacher)
    np.testing.assert_allclose(found, jax.grad(cost)(student), rtol=1e-10)


def test_other_costs(x64):
    student, teacher = logits(7)
    p, q = reference.softmax(student, 2.0), reference.softmax(teacher, 2.0)
    cost = ((p[:, None] - q) ** 2).sum(axis=-1)
    plan, found = SinKD(cost=SquaredL2()).plan(*map(jnp.asarray, (student, teacher)))
    np.testing.assert_allclose(found, cost, atol=1e-15)
    np.testing.assert_allclose(plan.sum(axis=0), np.full(8, 1 / 8))


def test_diagnostics():
    student, teacher = jnp.float32(logits(8))
    where = jnp.arange(8) < 6
    found = SinKD(num_iters=200).diagnostics(student, teacher, where=where)
    assert found["marginal_error"] < 1e-4 and found["feasible"] == 1
    assert 1 < found["effective_support"] < 6
    # One iteration at a small epsilon leaves the row sums far off.
    short = SinKD(num_iters=1, epsilon=1e-3).diagnostics(student, teacher, where=where)
    assert short["marginal_error"] > 0.1 and short["feasible"] == 0


# --- SinkhornDivergence -----------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1.0, 5.0]))
def test_mean_is_positive_unless_equal(seed, scale):
    student, teacher = np.float32(scale * logits(seed))
    loss = SinkhornDivergence(num_iters=100)
    losses, _ = value_and_gradient(loss, student, teacher)
    assert losses.mean() > -1e-5
    losses, gradient = value_and_gradient(loss, teacher, teacher)
    np.testing.assert_allclose(losses, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=5e-5)  # small differences of large


def test_gradient_modes_of_the_divergence_agree_at_convergence(x64):
    student, teacher = logits(9)
    unrolled, envelope, implicit = (
        value_and_gradient(
            SinkhornDivergence(epsilon=0.5, num_iters=400, gradient=mode),
            student,
            teacher,
        )
        for mode in ("unrolled", "envelope", "implicit")
    )
    for other in (envelope, implicit):
        np.testing.assert_allclose(other[0], unrolled[0], rtol=1e-12)
        np.testing.assert_allclose(other[1], unrolled[1], rtol=1e-8, atol=1e-12)


def test_value_is_that_of_ott(x64):
    from ott.geometry.geometry import Geometry
    from ott.solvers import linear

    student, teacher = logits(10)
    p, q = reference.softmax(student, 2.0), reference.softmax(teacher, 2.0)

    def entropic_cost(x, y):
        cost = jnp.asarray(np.abs(x[:, None] - y).sum(axis=-1))
        problem = Geometry(cost, epsilon=0.5)
        found = linear.solve(problem, threshold=1e-10, max_iterations=10_000)
        return found.reg_ot_cost

    expected = entropic_cost(p, q) - (entropic_cost(p, p) + entropic_cost(q, q)) / 2
    loss = SinkhornDivergence(epsilon=0.5, num_iters=400)
    losses, _ = value_and_gradient(loss, student, teacher)
    np.testing.assert_allclose(losses.mean(), expected, rtol=1e-8)
