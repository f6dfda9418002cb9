"""Losses that couple their rows, from hidden states and heads."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from objective.test_chunked import Problem, assert_same, value_and_gradient

import kd.divergences.batch_transport
import kd.divergences.decoupled
import kd.objective.mix
from kd.divergences import ATKD, KL, SinKD, SinkhornDivergence
from kd.objective import CrossEntropy
from kd.scheduled import scheduled
from kd.train.mesh import data_mesh, replicate
from kd.transport.cost import SquaredL2
from kd.types import Outputs

# Neither divides 97 classes, nor 13 rows.
CLASSES_AT_ONCE, ROWS_AT_ONCE = 40, 5

LOSSES = {
    "SinKD": SinKD(),
    "faithful, of another temperature": SinKD(temperature=0.7, convention="faithful"),
    "in the log domain": SinKD(epsilon=0.02, num_iters=5),
    "implicit": SinKD(gradient="implicit", num_iters=60),
    "envelope": SinKD(gradient="envelope"),
    "squared distances": SinKD(cost=SquaredL2()),
    "SinkhornDivergence": SinkhornDivergence(),
    "ATKD": ATKD(),
    "ATKD, reverse": ATKD(alpha=0.6, reverse=True),
}


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(kd.objective.mix, "large", lambda head: True)
    for module in (kd.objective.mix, kd.divergences.decoupled):
        monkeypatch.setattr(module, "rows_at_once", lambda num_outputs: ROWS_AT_ONCE)
    at_once(monkeypatch, CLASSES_AT_ONCE)


def at_once(monkeypatch, classes):
    monkeypatch.setattr(
        kd.divergences.batch_transport, "classes_at_once", lambda num_rows: classes
    )


def of_heads(problem, mix):
    """The mix, of a student without logits."""

    def value(student):
        unread = jnp.full((1, 1), jnp.nan)
        ours, theirs = (Outputs(unread, head=x) for x in (student, problem.teacher))
        return mix.apply(
            dict.fromkeys(mix.names, ()), ours, theirs, problem.batch, jnp.int32(3)
        )

    return value


def dense(problem, mix):
    """The same, of logits."""

    def value(student):
        ours, theirs = (Outputs(x.logits()) for x in (student, problem.teacher))
        return mix.apply(
            dict.fromkeys(mix.names, ()), ours, theirs, problem.batch, jnp.int32(3)
        )

    return value


def assert_as_dense(problem, mix, student=None):
    student = student or problem.student
    found = value_and_gradient(of_heads(problem, mix), student)
    expected = value_and_gradient(dense(problem, mix), student)
    (loss, metrics), gradient = found
    (of_logits, watched), expected_gradient = expected
    np.testing.assert_allclose(loss, of_logits, rtol=1e-12)
    # What is watched of a plan is a logarithm or a difference of what is computed.
    assert_same(metrics, watched, rtol=1e-10, atol=1e-12)
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected_gradient))
    assert scale > 0
    assert_same(gradient, expected_gradient, rtol=1e-12, atol=1e-12 * scale)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_value_and_gradient_are_those_of_all_logits(loss, x64):
    problem = Problem(padding=3)
    _, gradient = assert_as_dense(problem, 0.7 * loss)
    assert not jnp.any(gradient.kernel[:, 97:]) and jnp.any(gradient.kernel)
    assert not jnp.any(gradient.bias[97:]) and jnp.any(gradient.bias)


def test_a_mix_computes_every_term_in_its_own_way(x64):
    mix = 0.1 * CrossEntropy() + 0.9 * KL(temperature=2.0) + 0.8 * SinKD()
    (_, metrics), _ = assert_as_dense(Problem(), mix)
    assert "sinkd/marginal_error" in metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_classes, rows, at_once_",
    [(1000, 13, 256), (97, 13, 97), (97, 13, 1), (2, 5, 1), (32_000, 6, 4096)],
)
def test_any_number_of_classes_and_tiles(num_classes, rows, at_once_, monkeypatch, x64):
    at_once(monkeypatch, at_once_)
    assert_as_dense(Problem(num_classes, rows=rows), 1.0 * SinKD() + 0.5 * ATKD())


@pytest.mark.slow
def test_scaled_and_capped_logits(x64):
    problem = Problem()
    student = problem.student.replace(scale=0.25, cap=2.0)
    assert_as_dense(problem, 1.0 * SinKD() + 1.0 * ATKD(), student)


@pytest.mark.slow
def test_groups_have_plans_of_their_own(x64):
    assert_as_dense(Problem(rows=12), 1.0 * SinKD(num_groups=3))


@pytest.mark.slow
def test_settings_and_weights_follow_the_step(x64):
    def decreasing(step):
        return 1.0 - 0.1 * step

    mix = decreasing * scheduled(SinKD(), temperature=optax.linear_schedule(4, 1, 6))
    assert_as_dense(Problem(), mix + 1.0 * scheduled(ATKD(), alpha=decreasing))


@pytest.mark.parametrize("loss", [SinKD(), ATKD()])
def test_whatever_masked_rows_hold_reaches_nothing(loss, x64):
    problem = Problem()
    masked = ~problem.batch["mask"][:, None]
    assert masked.any()
    clean = problem.student
    dirty = clean.replace(hidden=jnp.where(masked, jnp.nan, clean.hidden))
    value = of_heads(problem, 1.0 * loss)
    expected = value_and_gradient(value, clean)
    problem.teacher = problem.teacher.replace(
        hidden=jnp.where(masked, jnp.nan, problem.teacher.hidden)
    )
    found = value_and_gradient(of_heads(problem, 1.0 * loss), dirty)
    assert_same(found, expected, rtol=1e-12)
    assert np.isfinite(found[0][0])


@pytest.mark.slow
def test_what_agrees_has_no_sign(x64):
    problem = Problem()

    def gradient(make):
        def value(student, teacher):
            # An argument: logits of a constant would be other roundings.
            problem.teacher = teacher
            return make(problem, 1.0 * SinKD())(student)[0]

        return jax.jit(jax.grad(value))(problem.student, problem.student)

    expected = gradient(dense)
    assert_same(gradient(of_heads), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [16, 13])
def test_four_devices_find_what_one_does(rows, x64):
    problem = Problem(rows=rows, padding=3)
    mix = 0.3 * KL() + 0.7 * SinKD() + 0.2 * ATKD() + 0.4 * SinkhornDivergence()
    expected = value_and_gradient(of_heads(problem, mix), problem.student)
    mesh = data_mesh()
    assert mesh.size == 4
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        found = value_and_gradient(
            of_heads(problem, mix), replicate(problem.student, mesh)
        )
    assert_same(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [SinKD(), ATKD()])
def test_half_precision_is_summed_up_in_float32(loss, x64):
    problem = Problem(1000)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), problem.student)
    rounded = jax.tree.map(lambda x: x.astype(jnp.float64), half)
    (value, _), gradient = value_and_gradient(of_heads(problem, 1.0 * loss), half)
    (expected, _), of_rounded = value_and_gradient(dense(problem, 1.0 * loss), rounded)
    assert gradient.kernel.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # A gradient is rounded once, to 8 bits, after it was summed up.
    for name in ("kernel", "hidden", "bias"):
        found, wanted = getattr(gradient, name), getattr(of_rounded, name)
        np.testing.assert_allclose(
            np.asarray(found, np.float64),
            wanted,
            rtol=2**-7,
            atol=2**-9 * abs(wanted).max(),
        )


def test_other_classes_are_refused():
    problem = Problem(dtype=np.float32)
    problem.teacher = problem.teacher.replace(num_classes=96)
    with pytest.raises(ValueError, match=r"SinKD compares .* \(13, 97\).* \(13, 96\)"):
        of_heads(problem, 1.0 * SinKD())(problem.student)
