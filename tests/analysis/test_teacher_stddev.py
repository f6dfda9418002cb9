import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from kd.analysis.teacher_stddev import teacher_stddev
from kd.views import Beside, CutMix, Mixup, Pick

WEIGHTS = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)


def predict(batch):
    return batch["inputs"].reshape(len(batch["inputs"]), -1) @ WEIGHTS


def make_batches(num=11, rows=6):
    """The last batch of each three has two rows that are masked."""
    random = np.random.default_rng(0)
    return [
        {
            "inputs": random.normal(size=(rows, 4, 4, 1)).astype(np.float32),
            "mask": np.arange(rows) < (rows - 2 if i % 3 == 2 else rows),
        }
        for i in range(num)
    ]


def defined(groups):
    """From the inputs [m, ...] that each mean is of."""
    means = [
        scipy.special.softmax(np.float64(x.reshape(len(x), -1) @ WEIGHTS), axis=1).mean(
            axis=0
        )
        for x in groups
    ]
    means = np.array(means)
    deviation = np.sqrt(
        np.square(means - means.mean(axis=0)).sum(axis=0) / (len(means) - 1)
    )
    return deviation.mean()


def in_groups(inputs, size):
    whole = len(inputs) // size
    return [np.concatenate(inputs[i * size : (i + 1) * size]) for i in range(whole)]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_of_the_examples_as_they_are(size):
    batches = make_batches()
    expected = defined(in_groups([b["inputs"][b["mask"]] for b in batches], size))
    found = teacher_stddev(predict, batches, batches_per_mean=size)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("beside", [False, True])
def test_of_a_view_and_of_both(beside, key):
    batches = make_batches()
    inputs = []
    for i, batch in enumerate(batches, start=1):
        viewed = Mixup()(jax.random.fold_in(key, i), jax.tree.map(jnp.array, batch))
        parts = [np.asarray(viewed["inputs"])[batch["mask"]]]
        parts += [batch["inputs"][batch["mask"]]] if beside else []
        inputs.append(np.concatenate(parts))
    view = Beside(Mixup()) if beside else Mixup()
    found = teacher_stddev(predict, batches, view, key=key, batches_per_mean=2)
    np.testing.assert_allclose(found, defined(in_groups(inputs, 2)), rtol=1e-4)


def test_views_that_the_teacher_chooses(key):
    batches = make_batches()
    by_teacher = Pick(CutMix(), by="teacher")
    assert teacher_stddev(predict, batches, by_teacher, key=key, batches_per_mean=2) > 0
    with pytest.raises(ValueError, match="let views choose by='teacher'"):
        teacher_stddev(predict, batches, Pick(CutMix()), key=key)


def test_what_cannot_be_told(key):
    with pytest.raises(
        ValueError, match="two means, of 5 batches each, and there are 1"
    ):
        teacher_stddev(predict, make_batches(9))
    with pytest.raises(ValueError, match="give key="):
        teacher_stddev(predict, make_batches(), Mixup())
