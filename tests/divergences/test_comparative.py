"""Comparisons of groups of examples, with a teacher's and with the labels'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from kd.divergences.comparative import ComparativeKL, ComparativeLabels

LABELS = np.array([0, 2, 1, 1, 0, 2, 2])
STUDENT = np.random.default_rng(0).normal(0, 2, (7, 3))


@pytest.mark.slow
@pytest.mark.parametrize(("positives", "negatives"), [(2, 1), (1, 1), (3, 2)])
def test_labels_are_compared_as_one_hot_logits(positives, negatives, x64):
    loss = ComparativeLabels(2.0, positives=positives, negatives=negatives)
    found = loss(jnp.asarray(STUDENT), jnp.asarray(LABELS))
    one_hot = np.eye(3)[LABELS]
    expected = reference.comparative_kl(STUDENT, one_hot, 2.0, positives, negatives)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    theirs = ComparativeKL(2.0, positives=positives, negatives=negatives)

    def mean(student, against, loss):
        return loss(student, against).mean()

    student = jnp.asarray(STUDENT)
    np.testing.assert_allclose(
        jax.grad(mean)(student, jnp.asarray(LABELS), loss),
        jax.grad(mean)(student, jnp.asarray(one_hot), theirs),
        rtol=1e-12,
    )


def test_the_least_loss_is_that_of_the_labels_themselves(x64):
    loss, labels = ComparativeLabels(), jnp.asarray(LABELS)
    # A shift of all logits of all examples changes no difference.
    student = jnp.asarray(np.eye(3)[LABELS] + np.array([0.3, -2.0, 5.0]))
    np.testing.assert_allclose(loss(student, labels), 0, atol=1e-12)
    gradient = jax.grad(lambda s: loss(s, labels).mean())(student)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
    assert loss(2 * student, labels).mean() > 0.01


@pytest.mark.slow
def test_masked_examples_take_no_part(x64):
    where = jnp.asarray([True, False, True, True, False, True, True])
    labels = jnp.where(where, LABELS, -1)
    student = jnp.where(where[:, None], STUDENT, jnp.nan)
    found = ComparativeLabels()(student, labels, where=where)
    alone = ComparativeLabels()(jnp.asarray(STUDENT)[where], jnp.asarray(LABELS)[where])
    np.testing.assert_allclose(found[where], alone, rtol=1e-12)
    assert not found[~where].any()
    assert not ComparativeLabels()(student, labels, where=where & False).any()


@pytest.mark.slow
def test_what_is_no_class_or_no_group_is_told():
    losses = ComparativeLabels()(jnp.asarray(STUDENT), jnp.asarray(LABELS) - 1)
    assert np.isnan(losses[0]) and np.isfinite(losses[1])
    with pytest.raises(ValueError, match="negatives must be at least 1"):
        ComparativeLabels(negatives=0)
    with pytest.raises(ValueError, match="temperature must be positive"):
        ComparativeLabels(temperature=0.0)
