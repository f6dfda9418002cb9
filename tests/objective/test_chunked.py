"""Losses of logits that are made some rows at a time."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from divergences.battery_cases import LOSSES, named

from kd.divergences import DKD, KL, TotalVariation
from kd.objective import CrossEntropy
from kd.objective.chunked import rows_at_once, weighted_sum
from kd.scheduled import scheduled
from kd.train.mesh import data_mesh, replicate
from kd.types import Head, Outputs

ROWS, WIDTH, TEACHER_WIDTH = 13, 6, 9
AT_ONCE = 5  # 13 rows in parts of 5: the last is filled up


class Problem:
    """Two heads over the same classes, with what a loss reads besides."""

    def __init__(self, num_classes=97, *, rows=ROWS, padding=0, dtype=float):
        random = np.random.default_rng(0)

        def normal(*shape):
            return jnp.asarray(random.normal(size=shape), dtype)

        columns = num_classes + padding
        self.student = Head(
            normal(rows, WIDTH), normal(WIDTH, columns), normal(columns),
            num_classes=num_classes,
        )  # fmt: skip
        self.teacher = Head(
            normal(rows, TEACHER_WIDTH), normal(TEACHER_WIDTH, num_classes)
        )
        mask = random.random(rows) < 0.8
        labels = random.integers(num_classes, size=rows)
        self.batch = {
            "mask": jnp.asarray(mask),
            "labels": jnp.asarray(np.where(mask, labels, -100)),
            "step": jnp.int32(3),
        }  # fmt: skip
        self.row_weights = jnp.asarray(np.where(mask, random.random(rows), 0), dtype)

    def dense(self, losses, weights, student):
        """The definition, of all logits at once."""
        ours, theirs = Outputs(student.logits()), Outputs(self.teacher.logits())
        sums = jnp.stack(
            [
                (
                    self.row_weights * loss.per_example((), ours, theirs, self.batch)
                ).sum()
                for loss in losses
            ]
        )
        return (jnp.asarray(weights) * sums).sum(), sums

    def chunked(self, losses, weights, student, num_rows=AT_ONCE):
        return weighted_sum(
            losses, jnp.asarray(weights), student, self.teacher, self.batch,
            jnp.stack([self.row_weights] * len(losses)), num_rows=num_rows,
        )  # fmt: skip


def value_and_gradient(function, student):
    return jax.jit(jax.value_and_grad(function, has_aux=True))(student)


def assert_same(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_a_loss_says_whether_its_rows_are_coupled():
    for case in LOSSES:
        assert case.loss.row_by_row != case.coupled, case.loss


@pytest.mark.parametrize(
    "loss",
    [case.loss for case in LOSSES if not case.coupled] + [CrossEntropy()],
    ids=named,
)
def test_value_and_gradient_are_those_of_all_logits(loss, x64):
    problem = Problem(padding=3)
    found, expected = (
        value_and_gradient(lambda s, f=f: f([loss], [0.7], s), problem.student)
        for f in (problem.chunked, problem.dense)
    )
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected))
    assert_same(found, expected, rtol=1e-12, atol=1e-12 * scale)
    # The padding of the vocabulary learns nothing.
    assert not jnp.any(found[1].kernel[:, 97:]) and jnp.any(found[1].kernel)


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 1000, 50_257])
@pytest.mark.parametrize("num_rows", [1, 4, 100])
def test_any_number_of_classes_and_rows_at_once(num_classes, num_rows, x64):
    problem = Problem(num_classes)
    losses, weights = [CrossEntropy(), KL(temperature=2.0), DKD()], [0.1, 0.9, 2.0]
    found, expected = (
        value_and_gradient(f, problem.student)
        for f in (
            lambda s: problem.chunked(losses, weights, s, num_rows),
            lambda s: problem.dense(losses, weights, s),
        )
    )
    assert_same(found, expected, rtol=1e-12, atol=1e-13)


def test_scaled_and_capped_logits(x64):
    problem = Problem()
    student = problem.student.replace(scale=0.25, cap=2.0)
    raw = student.hidden @ student.kernel + student.bias
    np.testing.assert_allclose(student.logits(), 2 * np.tanh(raw / 8), rtol=1e-14)
    found, expected = (
        value_and_gradient(lambda s, f=f: f([KL()], [1.0], s), student)
        for f in (problem.chunked, problem.dense)
    )
    assert_same(found, expected, rtol=1e-12, atol=1e-14)


def test_without_a_gradient_the_value_is_the_same(x64):
    problem = Problem()
    found = jax.jit(lambda s: problem.chunked([KL()], [1.0], s))(problem.student)
    assert_same(found, problem.dense([KL()], [1.0], problem.student), rtol=1e-12)


def test_only_the_student_learns(x64):
    problem = Problem()

    def total(teacher, row_weights, student):
        return weighted_sum(
            [KL()], jnp.ones(1), student, teacher, problem.batch, row_weights[None],
            num_rows=AT_ONCE,
        )[0]  # fmt: skip

    gradient = jax.grad(total, argnums=(0, 1))(
        problem.teacher, problem.row_weights, problem.student
    )
    assert not any(jnp.any(x) for x in jax.tree.leaves(gradient))

    def sums(student):
        return problem.chunked([KL()], [1.0], student)[1].sum()

    assert not any(jnp.any(x) for x in jax.tree.leaves(jax.grad(sums)(problem.student)))


@pytest.mark.parametrize("loss", [KL(), CrossEntropy()])
def test_whatever_masked_rows_hold_reaches_nothing(loss, x64):
    problem = Problem()
    masked = ~problem.batch["mask"][:, None]
    assert masked.any()
    clean = problem.student
    dirty = clean.replace(hidden=jnp.where(masked, jnp.nan, clean.hidden))
    found, expected = (
        value_and_gradient(lambda s: problem.chunked([loss], [1.0], s), student)
        for student in (dirty, clean)
    )
    assert_same(found, expected, rtol=1e-12)


def test_a_schedule_is_followed(x64):
    problem = Problem()
    follows = scheduled(KL(), temperature=optax.linear_schedule(4.0, 1.0, 6))
    found, _ = problem.chunked([follows], [1.0], problem.student)
    expected, _ = problem.dense([KL(temperature=2.5)], [1.0], problem.student)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("rows", [16, 13])
def test_four_devices_find_what_one_does(rows, x64):
    problem = Problem(rows=rows)
    losses, weights = [CrossEntropy(), TotalVariation()], [0.3, 0.7]

    def total(student):
        return problem.chunked(losses, weights, student, 2)

    expected = value_and_gradient(total, problem.student)
    mesh = data_mesh()
    assert mesh.size == 4
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        found = value_and_gradient(total, replicate(problem.student, mesh))
    assert_same(found, expected, rtol=1e-12, atol=1e-14)


def test_half_precision_is_summed_up_in_float32(x64):
    exact = Problem(1000)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), exact.student)
    rounded = jax.tree.map(lambda x: x.astype(jnp.float64), half)
    (value, sums), gradient = value_and_gradient(
        lambda s: exact.chunked([KL()], [1.0], s), half
    )
    (expected, _), of_rounded = value_and_gradient(
        lambda s: exact.dense([KL()], [1.0], s), rounded
    )
    assert sums.dtype == jnp.float64 and gradient.kernel.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # A gradient is rounded once, to 8 bits, after it was summed up.
    for name in ("kernel", "hidden"):
        found, wanted = getattr(gradient, name), getattr(of_rounded, name)
        np.testing.assert_allclose(
            np.asarray(found, np.float64),
            wanted,
            rtol=2**-7,
            atol=2**-7 * abs(wanted).max(),
        )


def test_no_array_of_all_logits_is_made():
    problem = Problem(1000, rows=64, dtype=np.float32)

    def shapes(function):
        program = jax.jit(jax.grad(function, has_aux=True)).lower(problem.student)
        text = program.compile().as_text() or ""
        return {
            tuple(map(int, s.split(","))) for s in re.findall(r"\[([\d,]+)\]", text)
        }

    chunked = shapes(
        lambda s: problem.chunked([KL(), CrossEntropy()], [1.0, 1.0], s, 8)
    )
    dense = shapes(lambda s: problem.dense([KL(), CrossEntropy()], [1.0, 1.0], s))
    assert (64, 1000) in dense
    assert (8, 1000) in chunked
    assert not [shape for shape in chunked if np.prod(shape) >= 64 * 1000]


@pytest.mark.parametrize(
    "losses, num_rows, message",
    [
        (
            [case.loss for case in LOSSES if case.coupled][:1],
            4,
            "atkd is not computed row by row",
        ),
        ([KL()], 0, "num_rows must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused(losses, num_rows, message):
    problem = Problem(dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        problem.chunked(losses, [1.0], problem.student, num_rows)


def test_rows_at_once_fit_the_memory_that_is_given():
    for num_classes in (97, 32_000, 50_257, 128_000):
        rows = rows_at_once(num_classes, megabytes=16)
        assert 4 * rows * num_classes <= 16 * 2**20 < 8 * rows * num_classes
    assert rows_at_once(10**9) == 1
