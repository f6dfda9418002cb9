"""A network with some of its weights set to 0, against torch's own pruning."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd import config
from kd.data.tables import GTZAN
from kd.divergences import KL
from kd.errors import UserError
from kd.experiment import Experiment, Network
from kd.models.bert import Bert
from kd.models.gpt2 import GPT2
from kd.models.llama import Llama
from kd.models.mlp import MLP
from kd.models.resnet import ResNet
from kd.networks.change import Layers, Pruned
from kd.objective import CrossEntropy
from kd.train.optimizer import AdamW

NETWORKS = [
    (MLP(widths=(7, 5)), {"inputs": np.zeros((1, 9), np.float32)}),
    (
        ResNet(widths=(4, 8), num_blocks=1, num_groups=2),
        {"inputs": np.zeros((1, 8, 8, 1), np.float32)},
    ),
    (
        Bert(num_layers=1, width=8, num_heads=2, mlp_width=16, vocab_size=20),
        {"tokens": np.zeros((1, 4), np.int32), "token_mask": np.ones((1, 4), bool)},
    ),
]


def params_of(network, batch):
    params = jax.jit(network.build(3).init)(jax.random.key(0), batch)
    # Of biases and norms as well, which begin at 0 and 1.
    return jax.tree.map(lambda x: np.asarray(x) + 0.01, params)


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        GPT2(num_layers=4, width=8, num_heads=2, mlp_width=16, vocab_size=20),
        Llama(
            num_layers=4, width=8, num_heads=2, num_key_value_heads=1, head_width=4,
            mlp_width=16, vocab_size=20, tied=False,
        ),
    ],
    ids=lambda network: type(network).__name__,
)  # fmt: skip
def test_layers_of_a_decoder(network):
    params = network.build(20).init(jax.random.key(0), {})
    smaller, kept = Layers((1, 3))(network, params)
    assert smaller == dataclasses.replace(network, num_layers=2)
    shapes = jax.eval_shape(smaller.build(20).init, jax.random.key(0), {})
    assert jax.tree.map(jnp.shape, kept) == jax.tree.map(jnp.shape, shapes)
    assert kept["layer_0"] is params["layer_1"] and kept["norm"] is params["norm"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.99])
@pytest.mark.parametrize(("network", "batch"), NETWORKS, ids=["mlp", "resnet", "bert"])
def test_the_share_of_every_layer_is_exact_and_of_the_smallest(network, batch, share):
    params = params_of(network, batch)
    same, pruned = Pruned(share)(network, params)
    assert same == network
    num_kernels = 0
    for (path, before), after in zip(
        jax.tree_util.tree_leaves_with_path(params),
        jax.tree.leaves(pruned),
        strict=True,
    ):
        if path[-1].key != "kernel":
            np.testing.assert_array_equal(after, before)
            continue
        num_kernels += 1
        zero = after == 0
        assert zero.sum() == round(share * before.size)
        np.testing.assert_array_equal(after[~zero], before[~zero])
        if 0 < zero.sum() < zero.size:
            assert np.abs(before[zero]).max() <= np.abs(before[~zero]).min()
    assert num_kernels > 2
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_it_is_what_torch_prunes(share):
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune

    network, batch = NETWORKS[1]
    params = params_of(network, batch)
    _, pruned = Pruned(share)(network, params)
    kernel = params["stage_1_block_0"]["conv_0"]["kernel"]
    layer = torch.nn.Conv2d(4, 8, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1)))
    prune.l1_unstructured(layer, name="weight", amount=share)
    expected = layer.weight.detach().numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(
        pruned["stage_1_block_0"]["conv_0"]["kernel"], expected
    )


def test_equal_weights_are_pruned_to_the_share_as_well():
    params = {"layer": {"kernel": np.ones((3, 4), np.float32)}}
    _, pruned = Pruned(0.25)(MLP(), params)
    assert pruned["layer"]["kernel"].ravel().tolist() == [0.0] * 3 + [1.0] * 9


def test_sizes_alone_stay():
    assert Pruned(0.5)(MLP(), None) == (MLP(), None)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(
        ValueError, match=r"share is of every layer's weights, in \[0, 1"
    ):
        Pruned(share)


def taught_by(*teachers, weights=()):
    recipe = Experiment(
        data=GTZAN, student=MLP(), objective=1.0 * CrossEntropy(), optimizer=AdamW(),
        num_steps=1,
    )  # fmt: skip
    networks = tuple(Network(recipe=recipe, change=change) for change in teachers)
    return dataclasses.replace(
        recipe, objective=1.0 * KL(), teachers=networks, teacher_weights=weights
    )


def test_weights_of_teachers_are_of_their_logits():
    first, second = (np.random.default_rng(i).normal(size=(4, 3)) for i in (0, 1))
    mixed = taught_by(None, Pruned(), weights=(0.7, 0.3)).combine([first, second])
    np.testing.assert_allclose(mixed, 0.7 * first + 0.3 * second)
    mean = taught_by(None, Pruned()).combine([first, second])
    probabilities = [
        np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (first, second)
    ]
    np.testing.assert_allclose(np.exp(mean), sum(probabilities) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.5, 0.3, 0.2), "teacher_weights are 3 for 2 teachers"),
        ((0.7, 0.4), "must be shares with the sum 1"),
        ((1.5, -0.5), "must be shares with the sum 1"),
        ((float("nan"), 0.3), "must be shares with the sum 1"),
    ],
)
def test_weights_that_are_no_shares_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        taught_by(None, Pruned(), weights=weights)


def test_shares_are_set_from_the_command_line():
    experiment = taught_by(None, Pruned(0.1), weights=(0.7, 0.3))
    changed = config.override(
        experiment, "teachers.1.change.share=0.5", "teacher_weights=0.6,0.4"
    )
    assert changed.teachers[1].change == Pruned(0.5)
    assert changed.teacher_weights == (0.6, 0.4)
    with pytest.raises(
        UserError, match="teacher_weights=1: teacher_weights are 1 for 2"
    ):
        config.override(experiment, "teacher_weights=1")
