"""Losses on predictions of which the small classes are taken for one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from divergences.battery_cases import LOSSES, named

from kd.divergences import (
    DKD,
    KL,
    LabelWords,
    LogitMSE,
    PerSequence,
    PerToken,
    SinKD,
    SkewedKL,
)
from kd.objective import CrossEntropy
from kd.objective import mix as mix_module
from kd.objective.chunked import weighted_sum
from kd.objective.mix import Mix
from kd.objective.partition import taken_together
from kd.scheduled import scheduled
from kd.train.mesh import data_mesh, replicate
from kd.types import Head, Outputs, TopLogits

ROWS, CLASSES = 7, 11
CASES = [case for case in LOSSES if case.loss.coarsens]
LOSS_OF = pytest.mark.parametrize("case", CASES, ids=lambda case: named(case.loss))


def logits(seed, *shape, scale=2.0):
    return scale * np.random.default_rng(seed).normal(size=shape or (ROWS, CLASSES))


def top_of(teacher, k, temperature):
    """The definition, in numpy."""
    order = np.argsort(-teacher, axis=-1, kind="stable")
    ids, rest = order[..., :k], order[..., k:]
    tails = temperature * np.log(
        np.exp(np.take_along_axis(teacher, rest, -1) / temperature).sum(-1)
    )
    return TopLogits(
        ids=jnp.asarray(ids), values=jnp.asarray(np.take_along_axis(teacher, ids, -1)),
        tails=jnp.asarray(tails[..., None]), temperatures=(temperature,),
    )  # fmt: skip


def coarse(values, ids, temperature):
    """Logits of the distribution that gives all other classes together one."""
    shares = np.exp(values / temperature)
    shares /= shares.sum(-1, keepdims=True)
    named = np.take_along_axis(shares, np.asarray(ids), -1)
    others = shares.copy()
    np.put_along_axis(others, np.asarray(ids), 0, -1)
    whole = np.concatenate([named, others.sum(-1, keepdims=True)], -1)
    return temperature * np.log(whole)


def value(loss, student, top, mask=None):
    batch = {"mask": jnp.ones(len(student), bool) if mask is None else mask}
    ours, theirs = taken_together(loss, Outputs(student), top.outputs(), batch)
    return loss.per_example((), ours, theirs, batch)


def gradient(loss, student, top):
    return jax.grad(lambda s: value(loss, s, top).sum())(jnp.asarray(student))


@LOSS_OF
def test_value_and_gradient_are_those_of_the_coarser_predictions(case, x64):
    student, teacher, loss = logits(0), logits(1), case.loss
    tau = loss.temperature
    top = top_of(teacher, 4, tau)
    theirs = coarse(teacher, top.ids, tau)
    held = {"held": coarse(student, top.ids, tau)} if case.holds else {}

    def definition(student):
        return case.definition(coarse(student, top.ids, tau), theirs, **held)

    found = value(loss, jnp.asarray(student), top)
    np.testing.assert_allclose(found, definition(student), rtol=1e-10, atol=1e-12)
    slope = np.empty_like(student)
    for column in range(CLASSES):
        moved = np.zeros_like(student)
        moved[:, column] = 1e-5
        slope[:, column] = definition(student + moved) - definition(student - moved)
    np.testing.assert_allclose(
        gradient(loss, student, top), slope / 2e-5, rtol=1e-5, atol=1e-7
    )


@LOSS_OF
def test_equal_to_the_full_ones_where_one_class_is_left(case, x64):
    student, teacher, loss = jnp.asarray(logits(0)), logits(1), case.loss
    top = top_of(teacher, CLASSES - 1, loss.temperature)

    def full(student):
        return loss(student, jnp.asarray(teacher))

    np.testing.assert_allclose(
        value(loss, student, top), full(student), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(
        gradient(loss, student, top), jax.grad(lambda s: full(s).sum())(student),
        rtol=1e-12, atol=1e-12,
    )  # fmt: skip


@LOSS_OF
def test_never_above_the_full_ones_and_grows_with_k(case, x64):
    loss = case.loss
    teacher = logits(2, 300, CLASSES, scale=3.0)
    student = jnp.asarray(logits(3, 300, CLASSES, scale=3.0))
    last = np.zeros(300) if case.zero_at_equal else np.full(300, -np.inf)
    for k in (1, 2, 4, 7, CLASSES - 1):
        found = np.asarray(value(loss, student, top_of(teacher, k, loss.temperature)))
        assert (found >= last - 1e-9 - 1e-12 * abs(found)).all()
        last = found
    full = np.asarray(loss(student, jnp.asarray(teacher)))
    assert (last <= full + 1e-9 + 1e-12 * abs(full)).all()
    few = value(loss, student, top_of(teacher, 2, loss.temperature))
    assert (np.asarray(few) < full - 1e-6).mean() > 0.5


def test_only_divergences_of_predictions_are_bounds():
    names = {case.loss.name for case in LOSSES if not case.loss.coarsens}
    assert {"akl", "bdkd", "logit_mse", "dkd", "sinkd", "continuation"} <= names
    assert len({case.loss.name for case in CASES}) == 14


def test_extreme_logits_and_classes_ruled_out():
    student = jnp.asarray([[1e4, -1e4, 0.0, -jnp.inf], [0.0, 1.0, -jnp.inf, -jnp.inf]])
    top = TopLogits(
        jnp.asarray([[0, 1], [1, 0]]), jnp.zeros((2, 2)),
        jnp.asarray([[0.0], [-jnp.inf]]), (1.0,),
    )  # fmt: skip
    for loss in (KL(), SkewedKL()):
        found, slope = jax.value_and_grad(lambda s, f=loss: value(f, s, top).sum())(
            student
        )
        assert jnp.isfinite(found) and jnp.isfinite(slope).all()


@pytest.mark.parametrize("wrapper", [PerToken, PerSequence])
def test_masked_tokens_reach_neither_value_nor_gradient(wrapper, x64):
    teacher = logits(1, 3, 4, CLASSES)
    kept = np.random.default_rng(5).random((3, 4)) < 0.6
    mask = np.array([True, False, True])
    counts = kept & mask[:, None]
    student = jnp.where(counts[..., None], logits(0, 3, 4, CLASSES), jnp.nan)
    batch = {"mask": jnp.asarray(mask), "prediction_mask": jnp.asarray(kept)}
    tau = 2.0
    mix = 1.0 * wrapper(KL(temperature=tau))
    top = top_of(teacher, 3, tau)
    params = mix.init(jax.random.key(0), Outputs(student), top.outputs())

    def loss(student, top):
        return mix.apply(params, Outputs(student), top.outputs(), batch, jnp.int32(0))[
            0
        ]

    found, slope = jax.value_and_grad(loss)(student, top)
    broken = jax.tree.map(
        lambda x: jnp.where(counts[..., None], x, 0 if x.dtype == int else jnp.nan), top
    )
    assert found == loss(student, broken)
    assert jnp.isfinite(slope).all() and not slope[~counts].any()
    rows = value(
        KL(temperature=tau), jnp.asarray(logits(0, 3, 4, CLASSES)[counts]),
        jax.tree.map(lambda x: x[counts], top),
    )  # fmt: skip
    if wrapper is PerToken:
        np.testing.assert_allclose(found, rows.mean(), rtol=1e-12)


def heads(num_rows=13, classes=97):
    random = np.random.default_rng(0)
    student = Head(
        jnp.asarray(random.normal(size=(num_rows, 6))),
        jnp.asarray(random.normal(size=(6, classes))),
    )
    return student, 2 * random.normal(size=(num_rows, classes)), random


def test_some_rows_at_a_time_equal_all_at_once(x64):
    student, teacher, random = heads()
    losses = [KL(temperature=2.0), CrossEntropy(), KL(temperature=1.0)]
    one, two = top_of(teacher, 8, 1.0), top_of(teacher, 8, 2.0)
    top = one.replace(
        tails=jnp.concatenate([one.tails, two.tails], -1), temperatures=(1.0, 2.0)
    )
    batch = {
        "mask": jnp.asarray(random.random(13) < 0.8),
        "labels": jnp.asarray(random.integers(97, size=13)),
    }
    weights = jnp.asarray([0.5, 0.1, 2.0])
    row_weights = jnp.where(batch["mask"], jnp.asarray(random.random((3, 13))), 0)

    def dense(student):
        outputs = Outputs(student.logits())
        return sum(
            weight
            * jnp.vdot(
                own,
                loss.per_example(
                    (), *taken_together(loss, outputs, top.outputs(), batch), batch
                ),
            )
            for weight, own, loss in zip(weights, row_weights, losses, strict=True)
        )

    def chunked(student):
        return weighted_sum(
            losses, weights, student, top, batch, row_weights, num_rows=5
        )[0]

    expected, found = (jax.value_and_grad(f)(student) for f in (dense, chunked))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_a_mix_takes_them_some_rows_at_a_time(num_devices, x64, monkeypatch):
    student, teacher, random = heads(num_rows=16)
    student = student.replace(hidden=student.hidden.reshape(4, 4, -1))
    top = top_of(teacher.reshape(4, 4, -1), 8, 2.0)
    batch = {
        "mask": jnp.asarray([True, True, False, True]),
        "prediction_mask": jnp.asarray(random.random((4, 4)) < 0.7),
        "labels": jnp.asarray(random.integers(97, size=(4, 4))),
    }
    mix = 0.3 * PerToken(CrossEntropy()) + 0.7 * PerToken(KL(temperature=2.0))
    mesh = data_mesh(jax.devices()[:num_devices])

    def found():
        def loss(student, top):
            return mix.apply(
                {"ce": (), "kl": ()}, student.outputs(), top.outputs(), batch,
                jnp.int32(0),
            )  # fmt: skip

        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.jit(jax.value_and_grad(loss, has_aux=True))(
                *replicate((student, top), mesh)
            )

    expected = found()
    taken = []
    rows_of = mix_module.weighted_sum
    monkeypatch.setattr(mix_module, "large", lambda head: True)
    monkeypatch.setattr(mix_module, "rows_at_once", lambda num_classes: 3)
    monkeypatch.setattr(
        mix_module, "weighted_sum",
        lambda *given, **how: taken.append(given) or rows_of(*given, **how),
    )  # fmt: skip
    for a, b in zip(jax.tree.leaves(found()), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    assert isinstance(taken[0][3], TopLogits)


def test_no_array_has_all_classes_of_all_rows():
    num_rows, classes, at_once = 64, 997, 8
    student, teacher, _ = heads(num_rows, classes)
    top = top_of(teacher, 8, 1.0)
    batch = {"mask": jnp.ones(num_rows, bool)}

    def total(student, top):
        return weighted_sum(
            [KL()], jnp.ones(1), student, top, batch, jnp.ones((1, num_rows)),
            num_rows=at_once,
        )[0]  # fmt: skip

    compiled = jax.jit(jax.grad(total)).lower(student, top).compile().as_text() or ""
    rows = {
        int(first)
        for first in re.findall(rf"\[(\d+),{classes}\]", compiled)
    }  # fmt: skip
    assert at_once in rows and max(rows) <= at_once  # 6 is the kernel's


@pytest.mark.parametrize(
    "loss",
    [
        LogitMSE(),
        DKD(),
        SinKD(),
        LabelWords(KL(), (1, 2)),
        scheduled(KL(), temperature=optax.constant_schedule(2.0)),
    ],
    ids=lambda loss: loss.name,
)
def test_losses_that_need_every_class_are_refused(loss):
    assert loss.tail_temperature is None
    with pytest.raises(ValueError, match="needs the logits of all classes"):
        value(loss, jnp.zeros((2, 5)), top_of(logits(0, 2, 5), 2, 1.0))


def test_other_settings_may_follow_the_step(x64):
    loss = scheduled(SkewedKL(temperature=2.0), skew=optax.constant_schedule(0.3))
    student, top = jnp.asarray(logits(0)), top_of(logits(1), 4, 2.0)
    mix = Mix((1.0 * loss).terms)
    batch = {"mask": jnp.ones(ROWS, bool)}
    params = mix.init(jax.random.key(0), Outputs(student), top.outputs())
    found, _ = mix.apply(params, Outputs(student), top.outputs(), batch, jnp.int32(0))
    expected = value(SkewedKL(temperature=2.0, skew=0.3), student, top)
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-6)
