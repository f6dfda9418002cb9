"""What is picked of a pool is exactly what is most uncertain there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from kd.views import Crop, CutMix, Mixup, Pick, View
from kd.views.pick import entropy


def make_batch(rows=10, masked=3):
    random = np.random.default_rng(0)
    return {
        "inputs": jnp.float32(random.normal(size=(rows, 4, 4, 1))),
        "labels": jnp.arange(rows),
        "mask": jnp.arange(rows) < rows - masked,
        "teacher_logits": jnp.float32(random.normal(size=(rows, 3))),
    }


WEIGHTS = jnp.float32(np.random.default_rng(1).normal(size=(16, 3)))


def ask(whom, batch):
    """Of the student a linear network, of the teacher what it said or the opposite."""
    if whom == "teacher" and "teacher_logits" in batch:
        return batch["teacher_logits"]
    sign = {"student": 1, "teacher": -3}[whom]
    return sign * batch["inputs"].reshape(-1, 16) @ WEIGHTS


def entropies(logits):
    probabilities = scipy.special.softmax(np.float64(logits), axis=1)
    return scipy.stats.entropy(probabilities, axis=1)


def pool_of(view, key, batch, num_views):
    """The unmasked rows of all views."""
    views = [view(key, batch) for key in jax.random.split(key, num_views)]
    return {
        name: np.concatenate([np.asarray(v[name])[:7] for v in views])
        for name in views[0]
    }


@pytest.mark.slow
@pytest.mark.parametrize("by", ["student", "teacher"])
@pytest.mark.parametrize("answers", ["live", "interpolated"])
@pytest.mark.parametrize("num_views", [1, 2, 5])
def test_the_most_uncertain_of_the_pool_are_kept(by, answers, num_views, key):
    batch = make_batch()
    view = CutMix(answers=answers)
    picked = Pick(view, num_views=num_views, by=by)
    kept = jax.jit(lambda key, batch: picked(key, batch, ask))(key, batch)
    pool = pool_of(view, key, batch, num_views)
    uncertainty = entropies(ask(by, pool))
    best = np.argsort(-uncertainty, kind="stable")[:7]
    for name, rows in pool.items():
        np.testing.assert_allclose(kept[name][:7], rows[best], rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(kept["mask"], batch["mask"])
    assert ("teacher_logits" in kept) == (answers == "interpolated")
    # Rows keep their labels and the shares of these.
    assert {"labels", "mixed_labels", "label_weight"} <= pool.keys()


@pytest.mark.slow
def test_entropy_of_the_clean_examples(key):
    batch = make_batch()
    view = Pick(Mixup(), num_views=2, by="teacher", entropy_of="clean")
    kept = view(key, batch, ask)
    uncertainty = entropies(batch["teacher_logits"][:7])
    order = np.argsort(-uncertainty)
    # The upper half of the examples, each in both of its views.
    expected = np.repeat(order, 2)[:7]
    np.testing.assert_array_equal(kept["labels"][:7], expected)


@pytest.mark.slow
def test_masked_rows_are_as_if_they_were_not_there(key):
    batch = make_batch()
    whole = Pick(Crop(1))(key, batch, ask)
    alone = Pick(Crop(1))(key, {k: rows[:7] for k, rows in batch.items()}, ask)
    for name, rows in alone.items():
        np.testing.assert_allclose(whole[name][:7], rows, rtol=1e-6, err_msg=name)


def test_labels_that_are_picked_count_for_the_batch(key):
    batch = make_batch()
    labelled = batch["mask"] & (batch["labels"] % 2 > 0)
    weight = jnp.where(labelled, 7 / labelled.sum(), 0)
    hidden = batch | {"labels": jnp.where(labelled, batch["labels"], -1)}
    kept = Pick(Mixup())(key, hidden | {"label_weight": weight}, ask)
    ours, theirs = kept["label_weight"], kept["mixed_label_weight"]
    np.testing.assert_allclose((ours + theirs)[:7].sum(), 7, rtol=1e-5)
    assert (ours[kept["labels"] < 0] == 0).all()


def test_entropy_is_that_of_the_softmax():
    rows = [[0, 0, 0], [3, 1, -2], [0, -np.inf, 0], [1e4, 0, -1e4]]
    logits = np.array(rows, np.float32)
    np.testing.assert_allclose(
        entropy(jnp.array(logits)), entropies(logits), rtol=1e-5, atol=1e-7
    )


def test_what_cannot_be_is_refused(key):
    with pytest.raises(ValueError, match="num_views must be at least 1, got 0"):
        Pick(num_views=0)
    with pytest.raises(ValueError, match="give ask="):
        Pick()(key, make_batch())
    assert isinstance(Pick(), View) and Pick().mixes and not Pick(Crop()).mixes
