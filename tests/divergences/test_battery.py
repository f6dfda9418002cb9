"""One battery for every divergence. A new loss enters it by one line in `LOSSES`."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

import kd.divergences
from kd.divergences import (
    JS,
    KL,
    Divergence,
    ReverseKL,
    SinKD,
    SinkhornDivergence,
    SoftCrossEntropy,
    TotalVariation,
)


class Case(NamedTuple):
    loss: Divergence
    definition: Callable
    coupled: bool = False
    """Whether the value of a row depends on other rows."""
    zero_at_equal: bool = True
    bounded: bool = False
    """Whether it stays finite when the student rules out what the teacher does not."""
    signed_rows: bool = False
    """Whether only the mean is known not to be negative."""


LOSSES = [
    Case(KL(), reference.kl),
    Case(KL(temperature=2.0), lambda s, t: reference.kl(s, t, 2.0)),
    Case(
        KL(temperature=3.0, temperature_squared=False),
        lambda s, t: reference.kl(s, t, 3.0) / 9,
    ),
    Case(ReverseKL(temperature=2.0), lambda s, t: reference.reverse_kl(s, t, 2.0)),
    Case(JS(temperature=2.0), lambda s, t: reference.js(s, t, 2.0), bounded=True),
    Case(JS(beta=0.1), lambda s, t: reference.js(s, t, beta=0.1), bounded=True),
    Case(TotalVariation(), reference.total_variation, bounded=True),
    Case(
        SoftCrossEntropy(temperature=2.0),
        lambda s, t: reference.soft_cross_entropy(s, t, 2.0),
        zero_at_equal=False,
    ),
    Case(SinKD(), reference.sinkd, coupled=True, zero_at_equal=False, bounded=True),
    Case(
        SinKD(epsilon=0.02, num_iters=50),  # small enough for the log domain
        lambda s, t: reference.sinkd(s, t, epsilon=0.02, num_iters=50),
        coupled=True,
        zero_at_equal=False,
        bounded=True,
    ),
    Case(
        SinKD(convention="faithful"),
        lambda s, t: 0.001 * len(s) * reference.sinkd(s, t),
        coupled=True,
        zero_at_equal=False,
        bounded=True,
    ),
    Case(
        SinkhornDivergence(),
        reference.sinkhorn_divergence,
        coupled=True,
        bounded=True,
        signed_rows=True,
    ),
]
every_loss = pytest.mark.parametrize("case", LOSSES, ids=lambda case: str(case.loss))


JITTED = {case.loss: jax.jit(case.loss) for case in LOSSES}


def logits(seed, rows=7, classes=5, scale=2.0):
    random = np.random.default_rng(seed)
    return scale * random.normal(size=(2, rows, classes))


@functools.partial(jax.jit, static_argnames="loss")
def value_and_gradient(loss, student, teacher, where=None, weights=None):
    def total(student):
        losses = loss(student, teacher, where=where)
        return jnp.sum(losses if weights is None else weights * losses), losses

    (_, losses), gradient = jax.value_and_grad(total, has_aux=True)(student)
    return losses, gradient


def test_every_public_divergence_is_in_the_battery():
    public = {
        member
        for _, member in inspect.getmembers(kd.divergences, inspect.isclass)
        if issubclass(member, Divergence) and not inspect.isabstract(member)
    }
    assert public == {type(case.loss) for case in LOSSES}


@every_loss
def test_value_is_that_of_the_definition(case, x64):
    student, teacher = logits(0)
    expected = case.definition(student, teacher)
    student, teacher = jnp.asarray(student), jnp.asarray(teacher)
    for found in (case.loss(student, teacher), JITTED[case.loss](student, teacher)):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@every_loss
def test_gradient_is_that_of_finite_differences(case, x64):
    student, teacher = logits(1)
    weights = np.linspace(0.5, 1.5, len(student))  # tells the rows apart
    _, gradient = value_and_gradient(
        case.loss, jnp.asarray(student), jnp.asarray(teacher), weights=weights
    )
    h = 1e-6
    for i, v in np.ndindex(student.shape):
        step = np.zeros_like(student)
        step[i, v] = h
        difference = (
            (
                case.definition(student + step, teacher)
                - case.definition(student - step, teacher)
            )
            @ weights
            / (2 * h)
        )
        np.testing.assert_allclose(gradient[i, v], difference, rtol=2e-5, atol=1e-8)


@every_loss
def test_masked_rows_are_as_good_as_dropped(case, x64):
    student, teacher = logits(2)
    where = np.array([True, False, True, True, False, True, True])
    kept, kept_gradient = value_and_gradient(
        case.loss, jnp.asarray(student[where]), jnp.asarray(teacher[where])
    )
    for garbage in (0.0, np.nan, np.inf, 1e30):
        dirty_student = np.where(where[:, None], student, garbage)
        dirty_teacher = np.where(where[:, None], teacher, garbage)
        losses, gradient = value_and_gradient(
            case.loss, jnp.asarray(dirty_student), jnp.asarray(dirty_teacher),
            where=jnp.asarray(where),
        )  # fmt: skip
        np.testing.assert_allclose(losses[where], kept, rtol=1e-12)
        np.testing.assert_allclose(
            gradient[where], kept_gradient, rtol=1e-9, atol=1e-14
        )
        assert not losses[~where].any() and not gradient[~where].any()


@every_loss
def test_nothing_left_gives_zero(case):
    student, teacher = jnp.float32(logits(3))
    losses, gradient = value_and_gradient(
        case.loss, student, teacher, where=jnp.zeros(len(student), bool)
    )
    assert not losses.any() and not gradient.any()


@every_loss
def test_teacher_is_a_constant(case):
    student, teacher = jnp.float32(logits(4))
    gradient = jax.grad(lambda t: case.loss(student, t).sum())(teacher)
    assert not gradient.any()


@every_loss
# Few shapes, because each is compiled; many seeds.
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 2), (2, 1), (6, 4)]),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
)
def test_properties(case, seed, shape, scale):
    rows, classes = shape
    student, teacher = jnp.float32(logits(seed, rows, classes, scale))
    jitted = JITTED[case.loss]
    losses = jitted(student, teacher)
    assert losses.shape == (rows,) and losses.dtype == jnp.float32
    # Of 20 iterations, not of their limit: these may leave it a little below 0.
    assert losses.mean() >= -1e-2 if case.signed_rows else np.all(losses >= -1e-6)

    random = np.random.default_rng(seed)
    shuffled = random.permutation(rows)
    np.testing.assert_allclose(
        jitted(student[shuffled], teacher[shuffled]), losses[shuffled],
        rtol=1e-3, atol=1e-5,
    )  # fmt: skip
    relabelled = random.permutation(classes)
    np.testing.assert_allclose(
        jitted(student[:, relabelled], teacher[:, relabelled]), losses,
        rtol=1e-3, atol=1e-5,
    )  # fmt: skip
    shift = random.normal(size=(rows, 1)).astype(np.float32)
    np.testing.assert_allclose(
        jitted(student + shift, teacher - 2 * shift), losses, rtol=1e-3, atol=1e-5
    )
    if case.zero_at_equal:
        np.testing.assert_allclose(jitted(teacher, teacher), 0, atol=1e-6)


@every_loss
def test_different_predictions_cost_something(case):
    student, teacher = jnp.float32(logits(5))
    equal = case.loss(teacher, teacher).sum()
    assert case.loss(student, teacher).sum() > equal + 1e-3 * (
        getattr(case.loss, "convention", "") != "faithful"
    )


@every_loss
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_extreme_logits_stay_finite(case, size):
    student, teacher = jnp.float32(logits(6, scale=1.0))
    student, teacher = size * np.sign(student), size * np.sign(teacher)
    losses, gradient = value_and_gradient(case.loss, student, teacher)
    assert np.all(np.isfinite(losses)) and np.all(np.isfinite(gradient))


@every_loss
def test_classes_ruled_out_by_both_are_as_good_as_absent(case, x64):
    student, teacher = logits(7)
    padding = np.full((len(student), 3), -np.inf)
    losses, gradient = value_and_gradient(
        case.loss, jnp.asarray(student), jnp.asarray(teacher)
    )
    padded, padded_gradient = value_and_gradient(
        case.loss, jnp.hstack([student, padding]), jnp.hstack([teacher, padding])
    )
    np.testing.assert_allclose(padded, losses, rtol=1e-12)
    np.testing.assert_allclose(padded_gradient[:, :5], gradient, rtol=1e-9, atol=1e-14)
    assert not padded_gradient[:, 5:].any()


@every_loss
@pytest.mark.parametrize("ruled_out", [-1e4, -np.inf])
def test_one_hot_teacher(case, ruled_out):
    student, _ = jnp.float32(logits(8))
    teacher = jnp.where(jnp.eye(5)[jnp.arange(7) % 5] > 0, 0, ruled_out)
    losses, gradient = value_and_gradient(case.loss, student, teacher)
    if isinstance(case.loss, ReverseKL) and ruled_out == -np.inf:
        # In truth: the student gives mass to what the teacher rules out.
        assert np.all(losses == np.inf)
    else:
        assert np.all(np.isfinite(losses)) and np.all(np.isfinite(gradient))


@every_loss
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_logits_are_lifted(case, dtype):
    student, teacher = jnp.asarray(logits(9), dtype)
    losses, gradient = value_and_gradient(case.loss, student, teacher)
    exact, _ = value_and_gradient(
        case.loss, student.astype(jnp.float32), teacher.astype(jnp.float32)
    )
    assert losses.dtype == jnp.float32 and gradient.dtype == dtype
    np.testing.assert_allclose(losses, exact, rtol=1e-6)


@every_loss
def test_sharded_over_four_devices_equals_one(case):
    from kd.train.mesh import data_mesh, shard_batch

    mesh = data_mesh()
    assert mesh.size == 4
    student, teacher = jnp.float32(logits(10, rows=8))
    expected = value_and_gradient(case.loss, student, teacher)
    sharded = shard_batch((student, teacher), mesh)
    found = jax.jit(lambda s, t: value_and_gradient(case.loss, s, t))(*sharded)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@every_loss
def test_shapes_that_differ_are_refused(case, monkeypatch):
    # The tests' type checker would be the first to complain.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"student \(4, 3\), teacher \(4, 2\)"):
        case.loss(jnp.zeros((4, 3)), jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"teacher \(1, 3\)"):
        case.loss(jnp.zeros((4, 3)), jnp.zeros((1, 3)))


@every_loss
def test_settings_out_of_range_are_refused(case):
    with pytest.raises(ValueError, match="temperature must be positive"):
        dataclasses.replace(case.loss, temperature=0.0)


def test_only_coupled_losses_depend_on_other_rows():
    student, teacher = jnp.float32(logits(11))
    for case in LOSSES:
        alone = np.concatenate(
            [case.loss(s[None], t[None]) for s, t in zip(student, teacher, strict=True)]
        )
        same = np.allclose(alone, case.loss(student, teacher), rtol=1e-4, atol=1e-6)
        assert same != case.coupled, case.loss
