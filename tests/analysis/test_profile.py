"""The profile of networks whose layers are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.analysis.profile import Examples, Sampling, profile
from kd.analysis.wasserstein import wasserstein
from kd.data.arrays import Arrays, Normalization, Normalized
from kd.models.mlp import MLP
from kd.models.resnet import ResNet

FEW = Sampling(num_examples=40, num_draws=3, num_points=5)


def examples(num, shape, seed, shift=0.0):
    random = np.random.default_rng(seed)
    inputs = random.normal(shift, 1, (num, *shape)).astype(np.float32)
    labels = (inputs.reshape(num, -1)[:, 0] > shift).astype(np.int32)
    channels = shape[-1]
    unchanged = Normalization(np.zeros(channels), np.ones(channels))
    split = Normalized(Arrays(inputs, labels), unchanged)
    return Examples(split, np.arange(num), labels, np.eye(2)[labels])


def params_of(network, shape):
    batch = {"inputs": jnp.zeros((1, *shape))}
    return jax.jit(network.build(2).init)(jax.random.key(0), batch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "shape", "names"),
    [
        (MLP(widths=(6, 3), dropout=0.5), (4,), ["hidden 0", "hidden 1"]),
        (
            ResNet(widths=(4, 8), num_blocks=1, num_groups=2),
            (6, 6, 1),
            ["stem", "stage 0", "stage 1", "pooled"],
        ),
    ],
    ids=["mlp", "resnet"],
)
def test_layers_and_their_parts(network, shape, names):
    params = params_of(network, shape)
    train, dev = examples(100, shape, 0), examples(60, shape, 1, shift=0.7)
    found = profile(network, params, 2, train, dev, FEW)
    assert [layer.name for layer in found.layers] == ["inputs", *names, "logits"]
    assert (found.num_examples, found.num_draws, found.num_points) == (40, 3, 5)
    # Dev lies elsewhere.
    assert found.layers[0].distance > 1.1 * found.layers[0].noise
    for layer in found.layers:
        assert layer.distance > 0 and layer.noise > 0 and layer.distance_error > 0
        assert 0 < layer.slope <= layer.bound * (1 + 1e-5)
        assert layer.score == max(1, layer.slope) * layer.distance
    assert found.layers[-1].slope == found.layers[-1].bound == 1
    assert found.funnel.score == min(layer.score for layer in found.layers)
    again = profile(network, params, 2, train, dev, FEW)
    assert again == found
    other = dataclasses.replace(FEW, seed=1)
    assert profile(network, params, 2, train, dev, other).layers != found.layers


def test_distances_are_between_layers_and_labels():
    """All there is in one draw, so what is compared is known."""
    network, shape = MLP(widths=(3,)), (4,)
    params = params_of(network, shape)
    train, dev = examples(20, shape, 0), examples(10, shape, 1, shift=0.3)
    train = train._replace(index=np.arange(0, 20, 2))
    sampling = Sampling(num_examples=5, num_draws=1, num_points=100)
    found = profile(network, params, 2, train, dev, sampling)
    assert (found.num_examples, found.num_points) == (5, 10)
    random = np.random.Generator(np.random.Philox(key=[0, 0]))
    order = random.permutation(train.index)
    new = random.permutation(dev.index)[:5]

    def joint(examples, index):
        batch = jax.tree.map(jnp.asarray, examples.split.inputs(index))
        outputs = network.build(2).apply(params, batch, None)
        return np.concatenate([outputs.hidden[0], examples.points[index]], axis=1)

    hidden = found.layers[1]
    expected = wasserstein(joint(train, order[:5]), joint(dev, new))
    np.testing.assert_allclose(hidden.distance, expected, rtol=1e-5)
    expected = wasserstein(joint(train, order[:5]), joint(train, order[5:10]))
    np.testing.assert_allclose(hidden.noise, expected, rtol=1e-5)
    assert np.isnan(hidden.distance_error)


def test_labels_that_are_not_learned_show_where_layers_would_not():
    """Same inputs with labels exchanged: only the label tells them apart."""
    network, shape = MLP(widths=(3,)), (1,)
    params = params_of(network, shape)
    train = examples(100, shape, 0)
    exchanged = train._replace(points=train.points[:, ::-1])
    same, other = (
        profile(network, params, 2, train, dev, Sampling(num_examples=50)).layers[0]
        for dev in (train, exchanged)
    )
    assert other.distance > 2 * same.distance


def test_the_funnel_is_the_layer_that_forgets():
    """A layer that maps everything to nearly one point, and is not undone."""
    network, shape = MLP(widths=(4, 4)), (4,)
    params = params_of(network, shape)
    params["layer_0"]["kernel"] = 0.001 * jnp.eye(4)
    params["layer_1"]["kernel"] = jnp.eye(4)
    params["classifier"]["kernel"] = jnp.ones((4, 2))
    train, dev = examples(100, shape, 0), examples(60, shape, 1, shift=3.0)
    # Without labels, which would be all that is left of the distance.
    train, dev = (e._replace(points=np.zeros((len(e.split), 1))) for e in (train, dev))
    found = profile(network, params, 2, train, dev, FEW)
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["inputs"].score > 100 * found.funnel.score
    assert found.funnel.name in ("hidden 0", "hidden 1", "logits")
    # What is multiplied again afterwards is no funnel.
    params["classifier"]["kernel"] = 1e6 * jnp.ones((4, 2))
    loud = {
        layer.name: layer.score_of_bound
        for layer in profile(network, params, 2, train, dev, FEW).layers
    }
    assert loud["hidden 0"] > 0.2 * loud["inputs"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_examples": 0}, "num_examples must be at least 1, got 0"),
        ({"num_draws": 0}, "num_draws must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**changes)


def test_too_few_examples():
    network, shape = MLP(widths=(3,)), (4,)
    train, dev = examples(1, shape, 0), examples(1, shape, 1)
    with pytest.raises(ValueError, match="1 training examples and 1 of dev cannot be"):
        profile(network, params_of(network, shape), 2, train, dev, FEW)
