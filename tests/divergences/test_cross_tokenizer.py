"""Losses between different tokenizers: the authors' values, slow definitions."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import reference
from conftest import OPTIMIZED

from kd.divergences import ULD, MultiLevelOT
from kd.types import Outputs

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SEQUENCES = np.load(GOLDEN / "uld.npz")
MULTILEVEL = np.load(GOLDEN / "multilevelot.npz")

FAITHFUL = MultiLevelOT(skip_student_eos=True, convention="faithful")
GREEDY = MultiLevelOT(
    skip_student_eos=True, convention="faithful", matching="greedy"
)  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def gradient_of_weighted_sum(loss, student, teacher, kept, teacher_kept, weights):
    def total(student, teacher):
        losses = loss(student, teacher, where=kept, teacher_where=teacher_kept)
        return losses @ weights, losses

    return jax.grad(total, argnums=(0, 1), has_aux=True)(student, teacher)


def value_and_gradient(loss, student, teacher, kept, teacher_kept, weights=None):
    weights = np.ones(len(student)) if weights is None else weights
    (gradient, gradient_of_teacher), losses = jax.device_get(
        gradient_of_weighted_sum(loss, student, teacher, kept, teacher_kept, weights)
    )
    assert not gradient_of_teacher.any(), "the teacher is a constant"
    return losses, gradient


def predictions_of(targets):
    """The prediction of a token is made one position before it."""
    return np.pad(targets[:, 1:] != -100, ((0, 0), (0, 1)))


GOLDEN_INPUTS = (
    SEQUENCES["student_logits"],
    SEQUENCES["teacher_logits"],
    predictions_of(SEQUENCES["student_targets"]),
    predictions_of(SEQUENCES["teacher_targets"]),
)


@pytest.mark.parametrize(
    ("loss", "golden", "case"),
    [
        (ULD(skip_student_eos=True), SEQUENCES, "uld"),
        (FAITHFUL, MULTILEVEL, "f1"),
        (GREEDY, MULTILEVEL, "f2"),
    ],
)
def test_authors_values(loss, golden, case, x64):
    losses, gradient = value_and_gradient(loss, *GOLDEN_INPUTS, 1.5 * np.full(2, 0.5))
    # The authors add up in float32; their gradient is in float64.
    expected = golden[f"{case}/distill_loss"]
    np.testing.assert_allclose(1.5 * losses.mean(), expected, rtol=1e-6)
    expected = golden[f"{case}/grad_student_logits"]
    np.testing.assert_allclose(
        gradient, expected, rtol=1e-9, atol=1e-13 * np.abs(expected).max()
    )


# --- slow definitions ---------------------------------------------------------------


def slow_uld(student, teacher):
    """Of one pair of answers."""
    size = max(student.shape[1], teacher.shape[1])
    total = 0.0
    for s, t in zip(student, teacher, strict=False):
        p, q = (sorted(reference.softmax(z), reverse=True) for z in (s, t))
        p, q = (list(x) + [0.0] * (size - len(x)) for x in (p, q))
        total += sum(abs(a - b) for a, b in zip(p, q, strict=True))
    return total / min(len(student), len(teacher))


def slow_multilevel_ot(student, teacher, num_classes, greedy, temperatures):
    """Of one pair of answers."""
    p, q = (
        reference.softmax(
            z / (z.std(axis=1, ddof=1, keepdims=True) + 1e-4), temperature
        )
        for z, temperature in zip((student, teacher), temperatures, strict=True)
    )
    length = min(len(p), len(q))
    chosen = sorted(range(q.shape[1]), key=lambda c: -q[:, c].sum())[:num_classes]
    matched = sorted(range(p.shape[1]), key=lambda c: -p[:, c].sum())[:num_classes]
    if greedy:
        matched, free = [], list(range(p.shape[1]))
        for c in chosen:
            # Positions that one of the two has not count as 0 there.
            def cost(a, c=c):
                both = np.abs(p[:length, a] - q[:length, c]).sum()
                return both + p[length:, a].sum() + q[length:, c].sum()

            matched.append(min(free, key=cost))
            free.remove(matched[-1])
    p, q = p[:, matched], q[:, chosen]
    absolute = np.abs(p[:length] - q[:length]).sum() / length
    logarithmic = -(q[:length] * np.log(p[:length])).sum() / length
    cost = np.abs(p[:, None] - q[None]).sum(axis=-1)
    plan = np.exp(-cost / 0.1)
    for _ in range(10):
        plan = plan / plan.sum(axis=1, keepdims=True) / len(p)
        plan = plan / plan.sum(axis=0, keepdims=True) / len(q)
    return absolute + 0.2 * logarithmic + 0.3 * (plan * cost).sum()


def multilevel(**settings):
    return MultiLevelOT(
        num_classes=4,
        log_weight=0.2,
        sequence_weight=0.3,
        student_temperature=0.5,
        teacher_temperature=2.0,
        **settings,
    )


LOSSES = [
    (ULD(), slow_uld),
    (
        multilevel(),
        functools.partial(
            slow_multilevel_ot, num_classes=4, greedy=False, temperatures=(0.5, 2.0)
        ),
    ),
    (
        multilevel(matching="greedy"),
        functools.partial(
            slow_multilevel_ot, num_classes=4, greedy=True, temperatures=(0.5, 2.0)
        ),
    ),
]
every_loss = pytest.mark.parametrize(("loss", "definition"), LOSSES)


def answers():
    """Logits of four pairs, unusable where they do not count.

    The last two have no student's, and no teacher's.
    """
    random = np.random.default_rng(0)
    student = random.normal(0, 2, (4, 5, 7))
    teacher = random.normal(0, 2, (4, 6, 9))
    kept = np.array(
        [[1, 1, 1, 0, 0], [0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 1]], bool
    )
    teacher_kept = np.array(
        [[0, 1, 1, 1, 1, 1], [1, 0, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1], [0] * 6], bool
    )
    student[~kept] = teacher[~teacher_kept] = np.nan
    return student, teacher, kept, teacher_kept


@every_loss
def test_value_and_gradient_are_those_of_the_definition(loss, definition, x64):
    student, teacher, kept, teacher_kept = answers()
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    losses, gradient = value_and_gradient(
        loss, student, teacher, kept, teacher_kept, weights
    )
    assert not losses[2:].any() and not gradient[2:].any()

    def total(student):
        values = [
            definition(student[i][kept[i]], teacher[i][teacher_kept[i]]) for i in (0, 1)
        ]
        return np.array(values), np.array(values) @ weights[:2]

    np.testing.assert_allclose(losses[:2], total(student)[0], rtol=1e-12)
    h = 1e-6
    for i, j, v in np.argwhere(np.isfinite(student)):
        above, below = student.copy(), student.copy()
        above[i, j, v] += h
        below[i, j, v] -= h
        slope = (total(above)[1] - total(below)[1]) / (2 * h)
        np.testing.assert_allclose(gradient[i, j, v], slope, rtol=2e-5, atol=1e-8)
    assert not gradient[~kept].any()


@every_loss
def test_classes_ruled_out_are_as_good_as_absent(loss, definition, x64):
    student, teacher, kept, teacher_kept = answers()
    expected = value_and_gradient(loss, student, teacher, kept, teacher_kept)
    ruled_out = ((0, 0), (0, 0), (1, 2))
    found = value_and_gradient(
        loss,
        np.pad(student, ruled_out, constant_values=-np.inf),
        np.pad(teacher, ruled_out, constant_values=-np.inf),
        kept,
        teacher_kept,
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    np.testing.assert_allclose(
        found[1], np.pad(expected[1], ruled_out), rtol=1e-9, atol=1e-14
    )


@every_loss
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
def test_classes_ruled_out_by_one_side_are_as_good_as_absent(
    loss, definition, side, x64
):
    """Where that leaves it fewer classes than the other has, and than are compared."""
    student, teacher, kept, teacher_kept = answers()
    left = [student[..., : 3 if side != "teacher" else None],
            teacher[..., : 2 if side != "student" else None]]  # fmt: skip
    expected = value_and_gradient(loss, left[0], left[1], kept, teacher_kept)
    ruled_out = [
        np.where(np.arange(whole.shape[-1]) < part.shape[-1], whole, -np.inf)
        for whole, part in zip((student, teacher), left, strict=True)
    ]
    losses, gradient = value_and_gradient(
        loss, ruled_out[0], ruled_out[1], kept, teacher_kept
    )
    np.testing.assert_allclose(losses, expected[0], rtol=1e-12)
    size = left[0].shape[-1]
    np.testing.assert_allclose(gradient[..., :size], expected[1], rtol=1e-9, atol=1e-14)
    assert not gradient[..., size:].any()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, OPTIMIZED])
@pytest.mark.parametrize("loss", [ULD(), multilevel(), multilevel(matching="greedy")])
def test_where_predictions_agree_nothing_pulls(loss, options):
    """What is left is the gradient of the terms without absolute values: 0 for ULD."""
    loss = dataclasses.replace(loss, student_temperature=1.0, teacher_temperature=1.0)
    if isinstance(loss, MultiLevelOT):
        loss = dataclasses.replace(loss, log_weight=0.0, sequence_weight=0.0)
    logits = jnp.float32(np.random.default_rng(2).normal(size=(3, 4, 7)))

    @functools.partial(jax.jit, compiler_options=options)
    def value_and_gradient(student, teacher):
        return jax.value_and_grad(lambda s: loss(s, teacher).sum())(student)

    value, gradient = value_and_gradient(logits, logits)
    assert value == 0 and not gradient.any()


@every_loss
def test_a_pair_does_not_see_the_others(loss, definition, x64):
    inputs = answers()
    losses, _ = value_and_gradient(loss, *inputs)
    turned, _ = value_and_gradient(loss, *(array[::-1] for array in inputs))
    np.testing.assert_allclose(turned[::-1], losses, rtol=1e-12)
    changed = [array.copy() for array in inputs]
    changed[0][1] *= -1
    found, _ = value_and_gradient(loss, *changed)
    assert found[0] == losses[0] and found[1] != losses[1]


@every_loss
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_extreme_logits_stay_finite(loss, definition, dtype):
    student, teacher, kept, teacher_kept = answers()
    student, teacher = 1e4 * np.sign(student), 1e4 * np.sign(teacher)
    losses, gradient = value_and_gradient(
        loss, student.astype(dtype), teacher.astype(dtype), kept, teacher_kept,
        np.ones(4, np.float32),
    )  # fmt: skip
    assert losses.dtype == np.float32 and gradient.dtype == dtype
    assert np.all(np.isfinite(losses)) and np.all(np.isfinite(gradient[kept]))


def test_zero_where_the_teacher_is_the_student_in_another_order():
    teacher = jnp.float32(np.random.default_rng(1).normal(size=(2, 4, 9)))
    np.testing.assert_allclose(ULD()(teacher[..., ::-1], teacher), 0, atol=1e-6)


def test_last_predictions_may_be_left_out(x64):
    student, teacher, kept, teacher_kept = answers()
    losses, _ = value_and_gradient(
        ULD(skip_student_eos=True, skip_teacher_eos=True),
        student, teacher, kept, teacher_kept,
    )  # fmt: skip
    first = student[0][:2], teacher[0][1:5]
    np.testing.assert_allclose(losses[0], slow_uld(*first), rtol=1e-12)
    # The second teacher's answer has two predictions, of which one is left.
    second = student[1][[1, 2]], teacher[1][[0]]
    np.testing.assert_allclose(losses[1], slow_uld(*second), rtol=1e-12)


@pytest.mark.slow
def test_in_a_mix_they_read_a_mask_for_each_side(monkeypatch):
    student, teacher, kept, teacher_kept = answers()
    student, teacher = jnp.float32(student), jnp.float32(teacher)
    outputs = Outputs(student), Outputs(teacher)
    batch = {
        "mask": jnp.array([True, False, True, True]),
        "prediction_mask": jnp.asarray(kept),
        "teacher_prediction_mask": jnp.asarray(teacher_kept),
    }
    losses = ULD().per_example((), *outputs, batch)
    expected = ULD()(
        student,
        teacher,
        where=batch["prediction_mask"],
        teacher_where=batch["teacher_prediction_mask"],
    )
    np.testing.assert_allclose(losses, expected * batch["mask"])
    # Of one tokenizer one mask is enough, of two it is not.
    del batch["teacher_prediction_mask"]
    same = ULD().per_example((), outputs[0], outputs[0], batch)
    np.testing.assert_array_equal(same, np.zeros(4))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"teacher_where of shape \(4, 5\) does not"):
        ULD().per_example((), *outputs, batch)


def test_shapes_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for student, teacher in (((2, 3), (2, 3)), ((2, 3, 4), (1, 3, 4))):
        with pytest.raises(ValueError, match="compares logits"):
            ULD()(jnp.zeros(student), jnp.zeros(teacher))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"student_temperature": 0.0}, "temperature must be positive"),
        ({"teacher_temperature": -1.0}, "temperature must be positive"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"log_weight": -0.1}, "weights must be at least 0"),
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"num_iters": 0}, "num_iters must be at least 1"),
        ({"matching": "best"}, 'matching is "rank" or "greedy"'),
        ({"convention": "paper"}, 'convention is "invariant" or "faithful"'),
    ],
)
def test_settings_out_of_range_are_refused(setting, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        MultiLevelOT(**setting)
