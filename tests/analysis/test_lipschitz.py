"""Bounds against the matrices of layers, and slopes against finite differences."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.analysis import lipschitz
from kd.models.mlp import MLP
from kd.models.resnet import ResNet

RESNET = ResNet(widths=(4, 8), num_blocks=1, num_groups=2)
MLP_ = MLP(widths=(5, 6), dropout=0.5)


def made(network, shape, seed=0):
    """Parameters and inputs."""
    inputs = jax.random.normal(jax.random.key(seed + 1), shape)
    params = jax.jit(network.build(3).init)(jax.random.key(seed), {"inputs": inputs})
    # Scales and biases of norms begin at 1 and 0.
    random = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape), params)
    return jax.tree.map(jnp.float32, params), inputs


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3])
def test_convolution_norm_bounds_that_of_its_matrix(size, stride):
    random = np.random.default_rng(0)
    kernel = random.normal(size=(size, size, 2, 3)).astype(np.float32)
    conv = nn.Conv(
        3, (size, size), strides=(stride, stride), padding=size // 2, use_bias=False
    )

    def apply(image):
        return conv.apply({"params": {"kernel": kernel}}, image[None])[0]

    image = jnp.zeros((6, 5, 2))
    matrix = jax.jacobian(apply)(image)
    norm = np.linalg.norm(matrix.reshape(-1, image.size), 2)
    bound = lipschitz.convolution_norm(kernel, (6, 5))
    assert norm <= bound * (1 + 1e-5)
    if stride == 1:
        # The zeros around cost little, and of 1 x 1 nothing.
        assert bound < (1.25 if size == 3 else 1.0001) * norm


def test_convolution_norm_of_a_known_kernel():
    average = np.full((3, 3, 1, 1), 1 / 9)
    np.testing.assert_allclose(lipschitz.convolution_norm(average, (8, 8)), 1.0)


def test_group_norm_norm_is_met_by_constant_groups():
    scale = np.array([0.5, -2.0, 1.0, 1.0], np.float32)
    norm = nn.GroupNorm(2, epsilon=1e-2, use_fast_variance=False)

    def apply(x):
        params = {"scale": scale, "bias": np.zeros(4, np.float32)}
        found = jnp.asarray(norm.apply({"params": params}, x))
        return found.reshape(len(x), -1)

    bound = lipschitz.group_norm_norm(scale, 1e-2)
    np.testing.assert_allclose(bound, 2.0 / 0.1)
    random = np.random.default_rng(0)
    flat = np.ones((1, 2, 3, 4), np.float32)
    for image in (flat, flat + 0.01 * random.normal(size=flat.shape)):
        slope = lipschitz.slopes(apply, np.float32(image))[0]
        assert slope <= bound * (1 + 1e-5)
    # The direction of the channel with scale -2 alone, its group's mean apart.
    at_constant = lipschitz.slopes(apply, flat)[0]
    assert at_constant > 0.9 * bound


@pytest.mark.parametrize(
    ("network", "shape"),
    [(MLP_, (4, 7)), (RESNET, (4, 6, 6, 2))],
    ids=["mlp", "resnet"],
)
def test_tails_go_on_from_every_layer(network, shape):
    params, inputs = made(network, shape)
    outputs = network.build(3).apply(params, {"inputs": inputs}, None)
    for layer, hidden in enumerate(outputs.hidden):
        logits = network.tail(layer, 3)(params, hidden)
        np.testing.assert_allclose(logits, outputs.logits, rtol=1e-5, atol=1e-6)


def test_bounds_of_an_mlp_are_products():
    params, _ = made(MLP_, (4, 7))
    names = ("layer_0", "layer_1", "classifier")
    norms = [float(np.linalg.norm(params[name]["kernel"], 2)) for name in names]
    expected = [float(np.prod(norms)), norms[1] * norms[2], norms[2], 1.0]
    np.testing.assert_allclose(lipschitz.mlp_bounds(MLP_, params), expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "shape"),
    [(MLP_, (64, 7)), (RESNET, (16, 6, 6, 2))],
    ids=["mlp", "resnet"],
)
def test_nothing_is_steeper_than_the_bounds(network, shape):
    params, inputs = made(network, shape)
    if network is MLP_:
        bounds = lipschitz.mlp_bounds(network, params)
    else:
        bounds = lipschitz.resnet_bounds(network, params, (6, 6))
    outputs = network.build(3).apply(params, {"inputs": inputs}, None)

    def whole(x):
        return network.build(3).apply(params, {"inputs": x}, None).logits

    tails = [network.tail(i, 3) for i in range(len(outputs.hidden))]
    tails = [whole, *(functools.partial(tail, params) for tail in tails)]
    assert len(bounds) == len(tails) + 1 and bounds[-1] == 1.0
    for bound, tail, values in zip(
        bounds[:-1], tails, (inputs, *outputs.hidden), strict=True
    ):
        half = len(values) // 2
        moved = np.linalg.norm(tail(values[:half]) - tail(values[half:]), axis=1)
        apart = np.linalg.norm(
            np.reshape(values[:half] - values[half:], (half, -1)), axis=1
        )
        assert np.all(moved <= bound * apart * (1 + 1e-4))
        assert lipschitz.slopes(tail, values).max() <= bound * (1 + 1e-4)


def test_the_last_bounds_of_a_resnet_are_tight():
    """Of the classifier, and of it after pooling 3 x 3 points."""
    params, inputs = made(RESNET, (3, 6, 6, 2))
    bounds = lipschitz.resnet_bounds(RESNET, params, (6, 6))
    norm = np.linalg.norm(params["classifier"]["kernel"], 2)
    np.testing.assert_allclose(bounds[-3:-1], [norm / 3, norm], rtol=1e-5)
    hidden = RESNET.build(3).apply(params, {"inputs": inputs}, None).hidden
    for layer in (2, 3):
        tail = RESNET.tail(layer, 3)
        found = lipschitz.slopes(lambda x, tail=tail: tail(params, x), hidden[layer])
        np.testing.assert_allclose(found, bounds[layer + 1], rtol=1e-4)


@pytest.mark.slow
def test_slope_is_the_largest_over_directions():
    params, inputs = made(MLP_, (2, 7))

    def whole(x):
        return MLP_.build(3).apply(params, {"inputs": x}, None).logits

    slope = lipschitz.slopes(whole, inputs)[0]
    random = np.random.default_rng(0)
    directions = random.normal(size=(2000, 7))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    step = 1e-3
    moved = whole(inputs[0] + step * directions) - whole(inputs[:1])
    rates = np.linalg.norm(moved, axis=1) / step
    assert rates.max() < slope * 1.01 and rates.max() > 0.8 * slope
