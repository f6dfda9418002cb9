"""One battery for every divergence of `battery_cases`."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from conftest import OPTIMIZED
from divergences.battery_cases import LOSSES, named
from hypothesis import given, settings
from hypothesis import strategies as st

import kd.divergences
from kd.divergences import (
    ATKD,
    DIST,
    DKD,
    JS,
    KL,
    AdaptiveKL,
    Alpha,
    BalancedKL,
    ComparativeKL,
    ContinuationKD,
    Divergence,
    FDivergence,
    Jeffreys,
    LabelledDivergence,
    LogitMSE,
    OptimalTransport,
    RankCorrelation,
    Renyi,
    SkewedKL,
    SkewedReverseKL,
    Standardized,
)
from kd.train.mesh import data_mesh, shard_batch

every_loss = pytest.mark.parametrize("case", LOSSES, ids=lambda case: named(case.loss))


def logits(seed, rows=8, classes=5, scale=2.0, dtype=np.float32):
    """Of a student and of a teacher."""
    random = np.random.default_rng(seed)
    return (scale * random.normal(size=(2, rows, classes))).astype(dtype)


def labels_of(student):
    rows, classes = student.shape
    return np.arange(2, 2 * rows + 2, 2, dtype=np.int32) % classes


def call(loss, student, teacher, labels=None, where=None):
    """The loss, with labels if it reads them."""
    if isinstance(loss, LabelledDivergence):
        labels = labels_of(student) if labels is None else labels
        return loss(student, teacher, jnp.asarray(labels), where=where)
    return loss(student, teacher, where=where)


def _gradients(loss, student, teacher, labels, where, weights):
    def total(student, teacher):
        losses = call(loss, student, teacher, labels, where)
        return jnp.sum(weights * losses), losses

    return jax.grad(total, argnums=(0, 1), has_aux=True)(student, teacher)


_compiled = jax.jit(_gradients, static_argnums=0)
# Transport is where a rounding error can take the place of a zero.
_optimized = jax.jit(_gradients, static_argnums=0, compiler_options=OPTIMIZED)


def value_and_gradient(
    loss, student, teacher, labels=None, where=None, weights=None, compiled=_compiled
):
    """Losses and the gradient of their weighted sum, compiled once for all tests."""
    rows = len(student)
    (gradient, gradient_of_teacher), losses = jax.device_get(
        compiled(
            loss,
            student,
            teacher,
            labels_of(student) if labels is None else labels,
            np.ones(rows, bool) if where is None else where,
            np.ones(rows, np.float32) if weights is None else weights,
        )
    )
    assert not gradient_of_teacher.any(), "the teacher is a constant"
    return losses, gradient


def values(*args, **named):
    return value_and_gradient(*args, **named)[0]


def test_every_public_divergence_is_in_the_battery():
    public = {
        member
        for _, member in inspect.getmembers(kd.divergences, inspect.isclass)
        if issubclass(member, Divergence | LabelledDivergence)
        and not inspect.isabstract(member)
    }
    assert public == {type(case.loss) for case in LOSSES}


def test_names_differ():
    by_class = {type(case.loss): case.loss.name for case in LOSSES}
    assert len(set(by_class.values())) == len(by_class)


@pytest.mark.slow
@every_loss
def test_value_and_gradient_are_those_of_the_definition(case, x64):
    student, teacher = logits(0, dtype=np.float64)
    labels = (labels_of(student),) if case.labelled else ()
    weights = np.linspace(0.5, 1.5, len(student), dtype=np.float32)  # tells rows apart
    compiled, gradient = value_and_gradient(
        case.loss, student, teacher, weights=weights,
        compiled=_optimized if case.coupled else _compiled,
    )  # fmt: skip
    eager = call(case.loss, jnp.asarray(student), jnp.asarray(teacher))
    expected = case.definition(student, teacher, *labels)
    for found in (compiled, eager):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)

    held = {"held": student} if case.holds else {}
    h = 1e-6
    for i, v in np.ndindex(student.shape):
        step = np.zeros_like(student)
        step[i, v] = h
        above, below = (
            case.definition(moved, teacher, *labels, **held) @ weights
            for moved in (student + step, student - step)
        )
        np.testing.assert_allclose(
            gradient[i, v], (above - below) / (2 * h), rtol=2e-5, atol=1e-7
        )


@every_loss
@pytest.mark.parametrize("garbage", [0.0, np.nan, np.inf, 1e30])
def test_masked_rows_and_classes_ruled_out_are_as_good_as_absent(case, garbage, x64):
    student, teacher = logits(2, dtype=np.float64)
    rows, classes = np.arange(8) % 4 > 0, np.arange(5) < 3
    labels = labels_of(student[:, classes])
    expected = value_and_gradient(
        case.loss, student[rows][:, classes], teacher[rows][:, classes], labels[rows]
    )
    for array in (student, teacher):
        array[:, ~classes] = -np.inf
        array[~rows] = garbage
    losses, gradient = value_and_gradient(
        case.loss, student, teacher, np.where(rows, labels, -100), where=rows,
        compiled=_optimized if case.coupled else _compiled,
    )  # fmt: skip
    np.testing.assert_allclose(losses[rows], expected[0], rtol=1e-12)
    np.testing.assert_allclose(
        gradient[rows][:, classes], expected[1], rtol=1e-9, atol=1e-14
    )
    assert not losses[~rows].any()
    assert not gradient[~rows].any() and not gradient[:, ~classes].any()


@every_loss
def test_nothing_left_gives_zero(case):
    student, teacher = logits(3)
    losses, gradient = value_and_gradient(
        case.loss, student, teacher, where=np.zeros(len(student), bool)
    )
    assert not losses.any() and not gradient.any()


@every_loss
# Few shapes, because each is compiled; many seeds.
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 2), (2, 1), (8, 5)]),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
)
def test_properties(case, seed, shape, scale):
    rows, classes = shape
    student, teacher = logits(seed, rows, classes, scale)
    labels = labels_of(student)
    losses = values(case.loss, student, teacher)
    assert losses.shape == (rows,) and losses.dtype == jnp.float32
    # Of 20 iterations, not of their limit: these may leave it a little below 0.
    assert losses.mean() >= -1e-2 if case.signed_rows else np.all(losses >= -1e-6)

    def same(found, expected):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)

    random = np.random.default_rng(seed)
    order = np.roll(np.arange(rows), 1) if case.ordered else random.permutation(rows)
    same(
        values(case.loss, student[order], teacher[order], labels[order]), losses[order]
    )
    relabelled = random.permutation(classes)
    same(
        values(
            case.loss, student[:, relabelled], teacher[:, relabelled],
            np.argsort(relabelled).astype(np.int32)[labels],
        ),
        losses,
    )  # fmt: skip
    if not case.sees_shifts:
        shift = random.normal(size=(rows, 1)).astype(np.float32)
        same(values(case.loss, student + shift, teacher - 2 * shift), losses)
    if case.zero_at_equal:
        np.testing.assert_allclose(values(case.loss, teacher, teacher), 0, atol=1e-6)


@every_loss
def test_different_predictions_cost_something(case):
    student, teacher = logits(5)
    equal = values(case.loss, teacher, teacher).sum() if case.zero_at_equal else 0
    assert values(case.loss, student, teacher).sum() > equal + 1e-3


@every_loss
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_extreme_logits_stay_finite(case, size):
    student, teacher = logits(6, scale=1.0)
    student, teacher = np.float32(size) * np.sign([student, teacher])
    losses, gradient = value_and_gradient(case.loss, student, teacher)
    assert np.all(np.isfinite(losses)) and np.all(np.isfinite(gradient))


ONE_HOT = np.where(np.eye(5)[np.arange(8) % 5] > 0, 0, -np.inf).astype(np.float32)


@every_loss
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_one_hot_predictions(case, side):
    student, teacher = logits(8)
    for one_hot in (np.maximum(ONE_HOT, np.float32(-1e4)), ONE_HOT):
        if side == "student":
            losses, gradient = value_and_gradient(case.loss, one_hot, teacher)
        else:
            losses, gradient = value_and_gradient(case.loss, student, one_hot)
        if side in case.infinite and one_hot is ONE_HOT:
            agreed = np.argmax(one_hot, 1) == np.argmax(teacher, 1)
            assert np.array_equal(losses == np.inf, ~(agreed & case.first_choice))
        else:
            assert np.all(np.isfinite(losses)) and np.all(np.isfinite(gradient))


@every_loss
def test_half_precision_logits_are_lifted(case):
    student, teacher = logits(9)
    student, teacher = student.astype(jnp.bfloat16), teacher.astype(np.float16)
    losses, gradient = value_and_gradient(case.loss, student, teacher)
    exact, exact_gradient = value_and_gradient(
        case.loss, np.float32(student), np.float32(teacher)
    )
    assert losses.dtype == np.float32 and gradient.dtype == student.dtype
    np.testing.assert_allclose(losses, exact, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(np.float32(gradient), exact_gradient, rtol=1e-2)


@every_loss
def test_sharded_over_four_devices_equals_one(case):
    mesh = data_mesh()
    assert mesh.size == 4
    student, teacher = logits(10)
    expected = value_and_gradient(case.loss, student, teacher)
    found = value_and_gradient(case.loss, *shard_batch((student, teacher), mesh))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@every_loss
def test_only_coupled_losses_depend_on_other_rows(case):
    student, teacher = logits(14)  # the median of ATKD passes the first row
    losses = values(case.loss, student, teacher)
    first = np.arange(len(student))[:, None] == 0
    found = values(case.loss, np.where(first, student, -student), teacher)
    found = found + values(case.loss, student, np.where(first, teacher, -teacher))
    assert np.allclose(found[0], 2 * losses[0], rtol=1e-4) != case.coupled


@every_loss
def test_shapes_that_differ_are_refused(case, monkeypatch):
    # The tests' type checker would be the first to complain.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"student \(4, 3\), teacher \(4, 2\); ULD"):
        call(case.loss, jnp.zeros((4, 3)), jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"teacher \(1, 3\)"):
        call(case.loss, jnp.zeros((4, 3)), jnp.zeros((1, 3)))


WITH_TEMPERATURE = [case.loss for case in LOSSES if hasattr(case.loss, "temperature")]


@pytest.mark.slow
@pytest.mark.parametrize("loss", WITH_TEMPERATURE, ids=named)
def test_temperatures_out_of_range_are_refused(loss):
    with pytest.raises(ValueError, match="temperature must be positive"):
        dataclasses.replace(loss, temperature=0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "setting", "message"),
    [
        (Jeffreys, {"forward": -1.0}, "at least 0"),
        (Jeffreys, {"forward": 0.0, "reverse": 0.0}, "not both 0"),
        (JS, {"beta": 1.0}, "beta must lie between 0 and 1, got 1.0"),
        (SkewedKL, {"skew": 0.0}, "skew must lie between"),
        (SkewedReverseKL, {"skew": 1.0}, "skew must lie between"),
        (Alpha, {"alpha": 1.0}, "which is KL, got 1.0"),
        (Renyi, {"alpha": 0.0}, "alpha must be positive"),
        (FDivergence, {"generator": jnp.exp}, "must be 0 at 1, got 2.7"),
        (AdaptiveKL, {"head_mass": 0.0}, "head_mass must lie between"),
        (BalancedKL, {"emphasis": 0.0}, "emphasis must be positive"),
        (BalancedKL, {"sharper": "both"}, 'is "forward" or "reverse"'),
        (LogitMSE, {"amplitude": 0.0}, "amplitude must be positive"),
        (ContinuationKD, {"amplitude": 0.0}, "amplitude must be positive"),
        (ContinuationKD, {"margin": -1.0}, "margin must be at least 0"),
        (Standardized, {"divergence": KL(), "correction": 2}, "is 0 or 1, got 2"),
        (DKD, {"beta": -1.0}, "at least 0"),
        (ATKD, {"alpha": 1.5}, "alpha must lie in"),
        (DIST, {"intra": -1.0}, "at least 0"),
        (RankCorrelation, {"softness": 0.0}, "softness must be positive"),
        (ComparativeKL, {"negatives": 0}, "at least 1"),
        (OptimalTransport, {"epsilon": 0.0}, "epsilon must be positive"),
        (OptimalTransport, {"tau_student": 0.0}, "tau_student is above 0"),
        (OptimalTransport, {"tau_teacher": 1.1}, "tau_teacher is above 0"),
    ],
)
def test_settings_out_of_range_are_refused(loss, setting, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        loss(**setting)
