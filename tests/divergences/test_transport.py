"""What SinKD and SinkhornDivergence can do beyond what every divergence can."""

import contextlib
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
from kd.transport import diagnostics, sharding
from kd.transport.cost import SquaredL2
from kd.types import Outputs


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
    student, teacher = logits(1).astype(np.float32)
    where = np.arange(8) < 4
    losses, gradient = value_and_gradient(SinKD(num_groups=2), student, teacher, where)
    assert losses[:4].all() and not losses[4:].any()
    assert np.all(np.isfinite(gradient)) and not gradient[4:].any()


def test_groups_without_rows_do_not_count_in_the_metrics(x64):
    student, teacher = map(jnp.asarray, logits(1))
    where = jnp.arange(8) < 4
    found = metrics_of(SinKD(num_groups=2, num_iters=1), student, teacher, where)
    alone = metrics_of(SinKD(num_iters=1), student[:4], teacher[:4], where[:4])
    assert alone["marginal_error"] > 0
    for name, value in alone.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="8 cannot be cut into 3 equal groups"):
        SinKD(num_groups=3)(*jnp.float32(logits(2)))
    with pytest.raises(ValueError, match="4 cannot be cut into 8"):
        SinKD(num_groups=8)(*jnp.float32(logits(2, rows=4)))
    with pytest.raises(ValueError, match="num_groups must be at least 1"):
        SinKD(num_groups=0)


# --- devices ------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss, classes, num_devices",
    [
        (SinKD(), 3, 2),
        (SinKD(), 3, 4),
        (SinKD(), 2, 4),  # on the line
        (SinKD(), 100, 4),  # exchanges rows for classes
        (SinKD(epsilon=0.02), 3, 4),  # log domain
        (SinKD(gradient="implicit"), 3, 4),
        (SinKD(num_groups=4, convention="faithful"), 3, 4),
        (SinkhornDivergence(), 3, 4),
        (SinkhornDivergence(num_groups=2), 3, 2),
    ],
    ids=str,
)
def test_devices_do_not_change_it(loss, classes, num_devices, x64):
    exchanges = sharding.by_classes(loss.cost, 8, 8, classes, num_devices)
    assert exchanges == (classes == 100)
    student, teacher = logits(3, classes=classes)
    where = np.array([True] * 6 + [False, True])
    expected = value_and_gradient(loss, student, teacher, where)
    mesh = data_mesh(jax.devices()[:num_devices])
    with jax.set_mesh(mesh):
        found = value_and_gradient(loss, *shard_batch((student, teacher, where), mesh))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("classes", [2, 3])
def test_devices_do_not_change_the_metrics(classes, x64):
    student, teacher = logits(3, classes=classes)
    where = np.array([True] * 6 + [False, True])

    def metrics(student, teacher, where):
        return SinKD().rows_with_metrics(student, teacher, where)[1]

    expected = jax.jit(metrics)(student, teacher, where)
    mesh = data_mesh()
    with jax.set_mesh(mesh):
        found = jax.jit(metrics)(*shard_batch((student, teacher, where), mesh))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("mesh_known", [False, True])
@pytest.mark.parametrize("num_groups", [1, 4])
def test_groups_on_devices_of_their_own_do_not_talk(num_groups, mesh_known):
    mesh = data_mesh()
    student, teacher = shard_batch(tuple(logits(4).astype(np.float32)), mesh)
    loss = SinKD(num_groups=num_groups)
    gradient = jax.jit(jax.grad(lambda s, t: loss(s, t).sum()))
    with jax.set_mesh(mesh) if mesh_known else contextlib.nullcontext():
        program = str(gradient.lower(student, teacher).compile().as_text())
    assert any(word in program for word in COLLECTIVES) == (num_groups == 1)


COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute")


def test_rows_that_devices_cannot_share_are_left_to_the_compiler():
    student, teacher = logits(4, rows=6).astype(np.float32)
    expected = value_and_gradient(SinKD(), student, teacher)
    with jax.set_mesh(data_mesh()):
        found = value_and_gradient(SinKD(), student, teacher)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


# --- two classes ----------------------------------------------------------------


def test_a_long_batch_of_two_classes_is_solved_on_the_line(x64):
    student, teacher = logits(12, rows=300, classes=2)
    where = np.arange(300) % 7 > 0
    found = value_and_gradient(SinKD(), student, teacher, where)
    # A third class that both rule out changes nothing but the way.
    ruled_out = np.full((300, 1), -np.inf)
    student, teacher = (np.hstack([z, ruled_out]) for z in (student, teacher))
    losses, gradient = value_and_gradient(SinKD(), student, teacher, where)
    np.testing.assert_allclose(found[0], losses, rtol=1e-10)
    np.testing.assert_allclose(found[1], gradient[:, :2], rtol=1e-8, atol=1e-14)


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


@pytest.mark.slow
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


def metrics_of(loss, student, teacher, where):
    return jax.jit(loss.rows_with_metrics)(student, teacher, where)[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss, rows, classes",
    [
        (SinKD(), 8, 3),
        (SinKD(epsilon=0.02), 8, 3),
        (SinKD(), 300, 2),
        (SinKD(epsilon=0.02), 300, 2),
        (SinkhornDivergence(), 8, 3),
    ],
)
def test_metrics_are_those_of_the_plan(loss, rows, classes, x64):
    student, teacher = map(jnp.asarray, logits(8, rows, classes))
    where = jnp.arange(rows) % 4 > 0
    plan, _ = SinKD(epsilon=loss.epsilon).plan(student, teacher, where=where)
    mass = where / where.sum()
    found = metrics_of(loss, student, teacher, where)
    expected = {
        "marginal_error": diagnostics.marginal_error(plan, mass, mass),
        "entropy": diagnostics.entropy(plan),
        "effective_support": diagnostics.effective_support(plan),
        "mass_off_diagonal": diagnostics.mass_off_diagonal(plan),
        "feasible": diagnostics.marginal_error(plan, mass, mass) <= 0.01,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-7, err_msg=name)


def test_metrics_tell_how_many_iterations_it_took(x64):
    student, teacher = map(jnp.asarray, logits(8))
    where = jnp.arange(8) < 6
    needed = int(
        metrics_of(SinKD(num_iters=200), student, teacher, where)["iterations"]
    )
    assert 2 < needed < 200
    for num_iters, feasible in ((needed, 1), (needed - 1, 0)):
        found = metrics_of(SinKD(num_iters=num_iters), student, teacher, where)
        assert found["feasible"] == feasible
        assert found["iterations"] == needed


@pytest.mark.slow
def test_a_mix_reports_them():
    student, teacher = (Outputs(jnp.float32(z)) for z in logits(8))
    batch = {"mask": jnp.ones(8, bool)}
    step = jnp.int32(0)
    _, metrics = (1.0 * SinKD()).apply({"sinkd": ()}, student, teacher, batch, step)
    assert {"loss/sinkd", "sinkd/marginal_error", "sinkd/entropy"} <= metrics.keys()


# --- SinkhornDivergence -----------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1.0, 5.0]))
def test_mean_is_positive_unless_equal(seed, scale):
    student, teacher = (scale * logits(seed)).astype(np.float32)
    loss = SinkhornDivergence(num_iters=100)
    losses, _ = value_and_gradient(loss, student, teacher)
    assert losses.mean() > -1e-5
    losses, gradient = value_and_gradient(loss, teacher, teacher)
    np.testing.assert_allclose(losses, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=5e-5)  # small differences of large


@pytest.mark.slow
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


@pytest.mark.slow
def test_value_is_that_of_ott(x64):
    from ott.geometry.geometry import Geometry
    from ott.solvers import linear

    student, teacher = logits(10)
    p, q = reference.softmax(student, 2.0), reference.softmax(teacher, 2.0)

    def entropic_cost(x, y):
        cost = jnp.asarray(np.abs(x[:, None] - y).sum(axis=-1))
        problem = Geometry(cost, epsilon=0.5)
        found = linear.solve(problem, threshold=1e-10, max_iterations=10_000)
        return jnp.asarray(found.reg_ot_cost)

    expected = entropic_cost(p, q) - (entropic_cost(p, p) + entropic_cost(q, q)) / 2
    loss = SinkhornDivergence(epsilon=0.5, num_iters=400)
    losses, _ = value_and_gradient(loss, student, teacher)
    np.testing.assert_allclose(losses.mean(), expected, rtol=1e-8)
