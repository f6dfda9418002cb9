"""Numbers that describe a plan; those of a solution are tested with SinKD."""

import jax.numpy as jnp
import numpy as np

from kd.transport import diagnostics

MASS = jnp.full(4, 0.25)
MATCHING = jnp.eye(4)[jnp.asarray([1, 0, 2, 3])] / 4
BLURRED = jnp.full((4, 4), 1 / 16)


def test_matching():
    assert diagnostics.marginal_error(MATCHING, MASS, MASS) < 1e-7
    np.testing.assert_allclose(diagnostics.entropy(MATCHING), np.log(4), rtol=1e-6)
    np.testing.assert_allclose(diagnostics.effective_support(MATCHING), 1, rtol=1e-6)
    np.testing.assert_allclose(diagnostics.mass_off_diagonal(MATCHING), 0.5, rtol=1e-6)


def test_everything_paired_alike():
    np.testing.assert_allclose(diagnostics.entropy(BLURRED), np.log(16), rtol=1e-6)
    np.testing.assert_allclose(diagnostics.effective_support(BLURRED), 4, rtol=1e-6)
    np.testing.assert_allclose(diagnostics.mass_off_diagonal(BLURRED), 0.75, rtol=1e-6)


def test_total_mass_does_not_matter():
    for number in (
        diagnostics.entropy, diagnostics.effective_support,
        diagnostics.mass_off_diagonal,
    ):  # fmt: skip
        np.testing.assert_allclose(number(8 * MATCHING), number(MATCHING), rtol=1e-5)


def test_wrong_marginals():
    plan = jnp.zeros((4, 4)).at[0].set(0.25)  # all in the first row
    np.testing.assert_allclose(diagnostics.marginal_error(plan, MASS, MASS), 1.5)


def test_nothing_transported_is_finite():
    nothing = jnp.zeros((4, 4))
    assert diagnostics.entropy(nothing) == 0
    assert diagnostics.effective_support(nothing) == 1
    assert np.isfinite(diagnostics.mass_off_diagonal(nothing))
