"""A loss of one of several classifiers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.divergences import KL, HardCrossEntropy
from kd.objective import CrossEntropy, OfHead
from kd.objective.of_head import NoSuchHead
from kd.types import Outputs

RANDOM = np.random.default_rng(0)
FIRST, SECOND, TEACHER = (jnp.asarray(RANDOM.normal(size=(5, 4))) for _ in range(3))
BATCH = {"mask": jnp.array([1, 1, 0, 1, 1], bool), "labels": jnp.array([0, 3, 1, 2, 1])}


def outputs(first, second):
    return Outputs((first + second) / 2, head_logits=(first, second))


def deit(first, second):
    """The objective of DeiT, one head learning from each."""
    mix = 0.5 * OfHead(CrossEntropy()) + 0.5 * OfHead(HardCrossEntropy(), 1)
    params = {name: () for name in mix.names}
    student, teacher = outputs(first, second), Outputs(TEACHER)
    return mix.apply(params, student, teacher, BATCH, jnp.int32(0))


def test_each_head_learns_from_its_own_target():
    loss, metrics = deit(FIRST, SECOND)
    kept = np.asarray(BATCH["mask"])

    def expected(logits, targets):
        shifted = np.asarray(logits) - np.logaddexp.reduce(logits, 1, keepdims=True)
        return -shifted[np.arange(5), targets][kept].mean()

    of_labels = expected(FIRST, np.asarray(BATCH["labels"]))
    of_teacher = expected(SECOND, np.asarray(TEACHER).argmax(1))
    np.testing.assert_allclose(metrics["loss/ce"], of_labels, rtol=1e-12)
    np.testing.assert_allclose(metrics["loss/hard_ce"], of_teacher, rtol=1e-12)
    np.testing.assert_allclose(loss, (of_labels + of_teacher) / 2, rtol=1e-6)


def test_the_gradient_of_a_head_is_that_of_its_loss():
    first, second = jax.grad(lambda a, b: deit(a, b)[0], argnums=(0, 1))(FIRST, SECOND)
    kept = np.asarray(BATCH["mask"])[:, None]
    for found, logits, targets in (
        (first, FIRST, BATCH["labels"]),
        (second, SECOND, TEACHER.argmax(1)),
    ):
        probs = np.exp(logits - np.logaddexp.reduce(logits, 1, keepdims=True))
        expected = np.where(kept, probs - np.eye(4)[np.asarray(targets)], 0) / 8
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def test_it_asks_for_what_the_loss_asks_for():
    assert OfHead(KL(), 1).needs_teacher and not OfHead(CrossEntropy()).needs_teacher
    assert OfHead(CrossEntropy()).reads_labels
    assert OfHead(KL(), 1).name == "kl"
    # Large vocabularies are computed from the head of all.
    assert not OfHead(KL(), 1).row_by_row


def test_a_head_that_is_not_there_is_refused_before_the_first_step():
    one = Outputs(FIRST)
    with pytest.raises(NoSuchHead, match="kl is of head 1, and the student has one; a"):
        OfHead(KL(), 1).init(jax.random.key(0), one, None)
    with pytest.raises(ValueError, match="ce is of head 2, and the student has 2"):
        OfHead(CrossEntropy(), 2).init(jax.random.key(0), outputs(FIRST, SECOND), None)
    with pytest.raises(ValueError, match="head must be 0 or more, got -1"):
        OfHead(KL(), -1)
