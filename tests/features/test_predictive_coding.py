"""The two bounds against their definitions, and what holds one of them back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.features.contracting import contracted
from kd.features.predictive_coding import InfoNCE, WassersteinPredictiveCoding
from kd.types import Outputs

BOTH = pytest.mark.parametrize(
    "loss", [InfoNCE(width=6), WassersteinPredictiveCoding(width=6, slope=2.0)],
    ids=["info_nce", "wpc"],
)  # fmt: skip


def views(rows=7, width=4, seed=0):
    random = np.random.default_rng(seed)
    return (jnp.float32(random.normal(size=(rows, width))) for _ in range(2))


def parameters(loss, width=4, scale=1.0, seed=0):
    seen = Outputs(jnp.zeros((1, width)))
    made = loss.init(jax.random.key(seed), seen, seen)
    random = np.random.default_rng(seed)
    noise = jax.tree.map(lambda x: 0.3 * random.normal(size=x.shape), made)
    return jax.tree.map(lambda x, e: jnp.float32(scale * (x + e)), made, noise)


def defined(loss, params, first, second):
    """Example by example, in float64."""
    first, second = (np.asarray(x, np.float64) for x in (first, second))
    kernel, bias = (np.float64(params[k]) for k in ("kernel", "bias"))

    def score(x, y):
        return -loss.slope * np.linalg.norm(np.concatenate([x, y]) @ kernel + bias)

    losses = []
    for i, x in enumerate(first):
        own = score(x, second[i])
        others = [score(x, y) for j, y in enumerate(second) if j != i]
        pool = others if loss.name == "wpc" else [own, *others]
        losses.append(np.log(np.mean(np.exp(pool))) - own)
    return np.array(losses)


@pytest.mark.slow
@BOTH
def test_value_and_gradient(loss):
    first, second = views()
    params = parameters(loss)
    expected = defined(loss, params, first, second)
    found = jax.jit(lambda *x: loss(*x, params=params))(first, second)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    both = np.concatenate([first, second], axis=1)
    distances = np.linalg.norm(both @ params["kernel"] + params["bias"], axis=1)
    scores = loss.scores(params, first, second)
    np.testing.assert_allclose(scores, -loss.slope * distances, rtol=1e-5)

    def total(first, second, params):
        return loss(first, second, params=params).sum()

    gradients = jax.grad(total, argnums=(0, 1, 2))(first, second, params)
    random = np.random.default_rng(1)
    for place, gradient in enumerate(gradients):
        # Both views learn, and so does the critic.
        direction = jax.tree.map(lambda x: random.normal(size=x.shape), gradient)
        step = 1e-6
        values = []
        for sign in (1, -1):
            moved = [first, second, params]
            moved[place] = jax.tree.map(
                lambda x, d, by=sign * step: np.float64(x) + by * d,
                moved[place],
                direction,
            )
            values.append(defined(loss, moved[2], moved[0], moved[1]).sum())
        slope = (values[0] - values[1]) / (2 * step)
        inner = sum(
            jax.tree.leaves(
                jax.tree.map(lambda g, d: np.vdot(g, d), gradient, direction)
            )
        )
        np.testing.assert_allclose(inner, slope, rtol=1e-3, atol=1e-4)
        assert abs(slope) > 1e-3


@pytest.mark.slow
@BOTH
def test_masked_rows_are_as_if_dropped(loss):
    first, second = views(rows=6)
    params = parameters(loss)
    where = jnp.arange(6) < 4
    alone = loss(first[:4], second[:4], params=params)
    first = first.at[4:].set(jnp.nan)
    second = second.at[5].set(jnp.inf)
    found = loss(first, second, params=params, where=where)
    np.testing.assert_allclose(found, np.append(alone, [0, 0]), rtol=1e-6)
    gradient = jax.grad(
        lambda x, y: loss(x, y, params=params, where=where).sum(), argnums=(0, 1)
    )(first, second)
    assert all(np.isfinite(g).all() and not g[4:].any() for g in gradient)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("kept", [0, 1])
def test_too_few_rows_tell_nothing(loss, kept):
    first, second = views(rows=3)
    params = parameters(loss)
    where = jnp.arange(3) < kept
    value, gradient = jax.value_and_grad(
        lambda x: loss(x, second, params=params, where=where).sum()
    )(first)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    assert np.isfinite(gradient).all()
    assert "tells examples of a batch apart" in loss.problem(1) and not loss.problem(2)


def distance_critic(scale, width=3):
    """f(x, y) = -scale |x - y|: largest where two vectors are equal."""
    both = np.concatenate([np.eye(width), -np.eye(width)])
    return {"kernel": jnp.float32(scale * both), "bias": jnp.zeros(width)}


@pytest.mark.parametrize("rows", [4, 16, 64])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_info_nce_is_bounded_by_log_n_and_wpc_is_not(rows, scale):
    """Second views equal to the first, and a critic as steep as one likes."""
    first, _ = views(rows=rows, width=3)
    params = distance_critic(scale)
    dependence = {
        loss.name: -float(loss(first, first, params=params).mean())
        for loss in (InfoNCE(), WassersteinPredictiveCoding())
    }
    assert 0 < dependence["info_nce"] <= np.log(rows) + 1e-5
    if scale > 1:
        # All that it can tell, and the other tells how far apart they are.
        np.testing.assert_allclose(dependence["info_nce"], np.log(rows), rtol=0.1)
        assert dependence["wpc"] > 2 * np.log(rows)
    if scale == 1000.0:
        tenth = distance_critic(100.0)
        less = -float(WassersteinPredictiveCoding()(first, first, params=tenth).mean())
        np.testing.assert_allclose(dependence["wpc"], 10 * less, rtol=0.2)


@pytest.mark.slow
def test_wpc_is_below_the_transport_cost_of_what_its_critic_may_move():
    """Jensen and Kantorovich: -loss <= slope W_1(joint, product) for Lipschitz f."""
    rows, width = 12, 3
    first, second = views(rows=rows, width=width, seed=3)
    second = first + 0.1 * second
    loss = WassersteinPredictiveCoding(slope=1.5)
    params = contracted(distance_critic(1.0))
    found = -float(loss(first, second, params=params).mean())
    # Of (x_i, y_i) to the pairs of two examples, moving the second views alone.
    apart = np.linalg.norm(second[:, None] - second[None], axis=-1)
    cost = apart.sum() / (rows * (rows - 1))
    assert 0 < found <= loss.slope * cost


def test_contracted_critics_are_lipschitz():
    loss = WassersteinPredictiveCoding(width=6, slope=3.0)
    params = contracted(parameters(loss, scale=20.0))
    (x, y), (a, b) = views(500, seed=1), views(500, seed=2)
    moved = jnp.abs(loss.scores(params, x, y) - loss.scores(params, a, b))
    apart = jnp.linalg.norm(jnp.concatenate([x - a, y - b], axis=1), axis=1)
    assert np.all(moved <= 3.0 * apart * (1 + 1e-5))
    assert moved.max() > 0.1
    # What is already flat stays as it is.
    flat = jax.tree.map(lambda x: 0.01 * x, params)
    for ours, theirs in zip(
        jax.tree.leaves(contracted(flat)), jax.tree.leaves(flat), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"slope": 0.0}, "slope must be posit"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        InfoNCE(**settings)
