"""Numbers that describe a plan."""

import jax
import jax.numpy as jnp
import numpy as np

from kd.transport import diagnostics

MASS = jnp.full(4, 0.25)
MATCHING = jnp.eye(4)[jnp.asarray([1, 0, 2, 3])] / 4
BLURRED = jnp.full((4, 4), 1 / 16)


def test_matching():
    found = diagnostics.diagnose(MATCHING, MASS, MASS)
    np.testing.assert_allclose(found["marginal_error"], 0, atol=1e-7)
    np.testing.assert_allclose(found["entropy"], np.log(4), rtol=1e-6)
    np.testing.assert_allclose(found["effective_support"], 1, rtol=1e-6)
    np.testing.assert_allclose(found["mass_off_diagonal"], 0.5, rtol=1e-6)
    assert found["feasible"] == 1


def test_everything_paired_alike():
    found = diagnostics.diagnose(BLURRED, MASS, MASS)
    np.testing.assert_allclose(found["entropy"], np.log(16), rtol=1e-6)
    np.testing.assert_allclose(found["effective_support"], 4, rtol=1e-6)
    np.testing.assert_allclose(found["mass_off_diagonal"], 0.75, rtol=1e-6)


def test_total_mass_does_not_matter_but_to_the_marginals():
    small, large = (
        diagnostics.diagnose(factor * MATCHING, factor * MASS, factor * MASS)
        for factor in (1, 8)
    )
    for name in ("entropy", "effective_support", "mass_off_diagonal", "feasible"):
        np.testing.assert_allclose(small[name], large[name], rtol=1e-5)


def test_wrong_marginals():
    plan = jnp.zeros((4, 4)).at[0].set(0.25)  # all in the first row
    found = diagnostics.diagnose(plan, MASS, MASS)
    np.testing.assert_allclose(found["marginal_error"], 1.5)
    assert found["feasible"] == 0
    assert diagnostics.diagnose(plan, MASS, MASS, tolerance=1.6)["feasible"] == 1


def test_nothing_transported_is_finite():
    nothing = jnp.zeros((4, 4))
    found = diagnostics.diagnose(nothing, jnp.zeros(4), jnp.zeros(4))
    assert all(np.isfinite(value) for value in found.values())


def test_no_gradient():
    def total(plan):
        return sum(diagnostics.diagnose(plan, MASS, MASS).values())

    assert not jax.grad(total)(BLURRED).any()
