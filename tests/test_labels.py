"""Labels that are no class: NaN to be seen, unless a mask leaves the example out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OPTIMIZED

from kd.divergences import ATKD, DKD
from kd.features import NormAndDirection
from kd.objective import CrossEntropy

STUDENT, TEACHER = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)


def norm_and_direction(student, labels, where):
    # As batches have them: those of no class are no numbers.
    means = jnp.take(jnp.eye(3), labels, axis=0, mode="fill")
    return NormAndDirection()(
        student, jnp.asarray(TEACHER), labels=labels, where=where, means=means
    )


LOSSES = {
    "ce": lambda s, labels, where: CrossEntropy()(s, labels, where=where),
    "dkd": lambda s, labels, where: DKD()(s, jnp.asarray(TEACHER), labels, where=where),
    "atkd": lambda s, labels, where: ATKD()(
        s, jnp.asarray(TEACHER), labels, where=where
    ),
    "norm_and_direction": norm_and_direction,
}


def value_and_gradient(loss, labels, where, options):
    @functools.partial(jax.jit, compiler_options=options)
    def both(student, labels, where):
        def total(student):
            losses = loss(student, labels, where)
            return losses.sum(), losses

        gradient, losses = jax.grad(total, has_aux=True)(student)
        return losses, gradient

    return jax.device_get(both(jnp.asarray(STUDENT), jnp.asarray(labels), where))


@pytest.mark.parametrize("options", [{}, OPTIMIZED], ids=["", "optimized"])
@pytest.mark.parametrize("label", [-1, 3, 5, -100])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_no_class_is_nan_or_masked(name, masked, label, options):
    labels = np.array([0, 1, 2, 1, 0], np.int32)
    kept = np.array([True, True, True, masked, True])
    # Of the other rows nothing changes, but where they are coupled.
    expected = value_and_gradient(LOSSES[name], labels, kept if masked else None, {})
    labels[2] = label
    where = kept & (np.arange(5) != 2) if masked else None
    losses, gradient = value_and_gradient(LOSSES[name], labels, where, options)
    if masked:
        assert losses[2] == 0 and not gradient[2].any()
        assert np.all(np.isfinite(losses)) and np.all(np.isfinite(gradient))
    else:
        assert np.isnan(losses[2]) and np.all(np.isnan(gradient[2]))
    if name != "atkd":
        others = np.arange(5) != 2
        for found, whole in zip((losses, gradient), expected, strict=True):
            np.testing.assert_allclose(
                found[others], whole[others], rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("masked", [False, True])
def test_of_a_batch_a_negative_label_is_no_class_either(masked):
    labels = np.array([0, 1, -1, -1, 0], np.int32)
    losses, gradient = value_and_gradient(
        lambda s, labels, where: NormAndDirection(class_means="batch")(
            s, jnp.asarray(TEACHER), labels=labels, where=where
        ),
        labels, labels >= 0 if masked else None, {},
    )  # fmt: skip
    outside = labels < 0
    assert np.all(np.isfinite(losses[~outside]))
    if masked:
        assert not losses[outside].any() and not gradient[outside].any()
    else:
        assert np.all(np.isnan(losses[outside])) and np.all(np.isnan(gradient[outside]))
