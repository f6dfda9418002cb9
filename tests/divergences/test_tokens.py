"""Losses of rows on the tokens of sequences."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from kd.divergences import ATKD, DKD, KL, LogitMSE, PerToken, SinKD
from kd.objective import CrossEntropy, masked_mean
from kd.types import Outputs

SEQUENCES, LENGTH, CLASSES = 4, 6, 5
MASK = np.array([True, True, False, True])
COUNTS = np.arange(LENGTH) < np.array([[3], [6], [5], [1]])
VALID = COUNTS & MASK[:, None]


def batch_of(labels):
    return {
        "mask": jnp.asarray(MASK),
        "prediction_mask": jnp.asarray(COUNTS),
        "labels": jnp.asarray(labels),
    }


@pytest.fixture
def tokens():
    """Logits and labels, unusable where they do not count."""
    random = np.random.default_rng(0)
    shape = (SEQUENCES, LENGTH, CLASSES)
    student, teacher = random.normal(size=(2, *shape)).astype(np.float32)
    labels = random.integers(CLASSES, size=shape[:2])
    labels[~VALID] = -100
    student[~VALID] = teacher[~VALID] = np.nan
    return student, teacher, labels


@functools.partial(jax.jit, static_argnums=0)
def apply(loss, student, teacher, labels):
    return loss.per_example((), Outputs(student), Outputs(teacher), batch_of(labels))


@pytest.mark.parametrize("loss", [KL(), SinKD(), DKD(), ATKD(), CrossEntropy()])
def test_mean_is_that_over_all_tokens_that_count(loss, tokens):
    student, teacher, labels = tokens
    losses = apply(PerToken(loss), student, teacher, labels)
    rows = [student[VALID], teacher[VALID], labels[VALID]]
    if isinstance(loss, CrossEntropy):
        del rows[1]
    elif not isinstance(loss, DKD | ATKD):
        del rows[2]
    expected = jax.jit(loss)(*rows).mean()
    assert losses.shape == (SEQUENCES,) and losses[2] == 0
    np.testing.assert_allclose(
        masked_mean(losses, jnp.asarray(MASK)), expected, rtol=1e-5
    )


def test_mean_of_sequences_weighs_them_alike(tokens):
    losses = apply(PerToken(KL(), average="sequences"), *tokens)
    for i, valid in enumerate(VALID):
        student, teacher = (jnp.asarray(side[i][valid]) for side in tokens[:2])
        expected = KL()(student, teacher).mean() if valid.any() else 0
        np.testing.assert_allclose(losses[i], expected, rtol=1e-5)


@pytest.mark.parametrize("average", ["tokens", "sequences"])
def test_tokens_that_do_not_count_have_no_gradient(average, tokens):
    student, teacher, labels = tokens
    gradient = jax.grad(
        lambda s: apply(PerToken(KL(), average), s, teacher, labels).sum()
    )(jnp.asarray(student))
    assert np.array_equal(np.any(np.asarray(gradient) != 0, axis=-1), VALID)


def test_in_a_mix_it_goes_by_the_name_of_its_loss(key, tokens):
    student, teacher, labels = tokens
    mix = 0.5 * PerToken(CrossEntropy()) + 0.5 * PerToken(KL())
    assert mix.names == ["ce", "kl"] and mix.needs_teacher
    assert not (1.0 * PerToken(CrossEntropy())).needs_teacher
    ours, theirs = Outputs(jnp.asarray(student)), Outputs(jnp.asarray(teacher))
    params = mix.init(key, *jax.eval_shape(lambda: (ours, theirs)))
    loss, metrics = mix.apply(params, ours, theirs, batch_of(labels), jnp.int32(0))
    np.testing.assert_allclose(
        loss, 0.5 * (metrics["loss/ce"] + metrics["loss/kl"]), rtol=1e-6
    )


def test_no_token_at_all_gives_zero(tokens):
    student, teacher, labels = tokens
    batch = batch_of(labels) | {"prediction_mask": jnp.zeros_like(COUNTS)}
    outputs = Outputs(jnp.asarray(student)), Outputs(jnp.asarray(teacher))
    for average in ("tokens", "sequences"):
        losses = PerToken(LogitMSE(), average).per_example((), *outputs, batch)
        assert not losses.any()


def test_unknown_averages_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="words"):
        PerToken(KL(), average="words")  # pyrefly: ignore
