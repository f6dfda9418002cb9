"""The networks of images and tables, and their way to disk and back."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import safetensors.numpy

from kd.errors import UserError
from kd.models import saved
from kd.models.bert import Bert
from kd.models.mlp import MLP
from kd.models.resnet import ResNet
from kd.models.wide_resnet import WideResNet
from kd.networks.load import check_same

LABELS = ("cat", "dog", "frog")
RESNET = ResNet(widths=(4, 8), num_blocks=1, num_groups=2)
MLP_ = MLP(widths=(5, 6), dropout=0.5)
WIDE = WideResNet(depth=10, widen=1, dropout=0.3)
ALL = {"resnet": RESNET, "mlp": MLP_, "wide": WIDE}
NETWORKS = pytest.mark.parametrize("network", ALL.values(), ids=ALL)


def batch_of(network, num_examples=3):
    shape = (num_examples, 7) if isinstance(network, MLP) else (num_examples, 6, 6, 2)
    return {"inputs": jax.random.normal(jax.random.key(1), shape)}


@pytest.fixture(scope="module")
def params_of():
    """Initial parameters, made once for each network."""
    made = {
        network: jax.jit(network.build(3).init)(jax.random.key(0), batch_of(network))
        for network in ALL.values()
    }
    return made.__getitem__


@pytest.mark.slow
def test_hidden_are_maps_and_then_what_the_classifier_reads(params_of):
    params = params_of(RESNET)
    outputs = RESNET.build(3).apply(params, batch_of(RESNET), None)
    shapes = [x.shape for x in outputs.hidden]
    assert shapes == [(3, 6, 6, 4), (3, 6, 6, 4), (3, 3, 3, 8), (3, 8)]
    assert outputs.logits.shape == (3, 3)
    *_, last_map, pooled = outputs.hidden
    np.testing.assert_allclose(pooled, last_map.mean((1, 2)), rtol=1e-5)
    head = params["classifier"]
    expected = pooled @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-4, atol=1e-6)


def test_a_wide_resnet_normalizes_before_it_convolves(params_of):
    """A block written out: its input is normalized, and added as it was."""
    params, batch = params_of(WIDE), batch_of(WIDE)
    outputs = WIDE.build(3).apply(params, batch, None)
    shapes = [x.shape for x in outputs.hidden]
    assert shapes == [
        (3, 6, 6, 16),
        (3, 6, 6, 16),
        (3, 3, 3, 32),
        (3, 2, 2, 64),
        (3, 64),
    ]
    block = params["stage_0_block_0"]
    assert "shortcut" not in block
    stem, first, *_ = (np.asarray(x, np.float64) for x in outputs.hidden)

    def norm_relu(x, norm):
        groups = x.reshape(*x.shape[:3], 4, -1)
        centred = groups - groups.mean((1, 2, 4), keepdims=True)
        variance = np.square(centred).mean((1, 2, 4), keepdims=True)
        x = (centred / np.sqrt(variance + 1e-6)).reshape(x.shape)
        return np.maximum(x * norm["scale"] + norm["bias"], 0)

    def conv(x, kernel):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return sum(
            padded[:, i : i + 6, j : j + 6] @ np.asarray(kernel[i, j], np.float64)
            for i, j in np.ndindex(3, 3)
        )

    y = conv(norm_relu(stem, block["norm_0"]), block["conv_0"]["kernel"])
    y = conv(norm_relu(y, block["norm_1"]), block["conv_1"]["kernel"])
    np.testing.assert_allclose(first, stem + y, rtol=1e-4, atol=1e-5)


def test_a_stem_of_its_own_width():
    network = ResNet(widths=(8, 8), num_blocks=1, num_groups=2, stem_width=4)
    model = network.build(3)
    params = jax.eval_shape(model.init, jax.random.key(0), batch_of(network))
    assert params["stem"]["kernel"].shape == (3, 3, 2, 4)
    assert params["stage_0_block_0"]["shortcut"]["kernel"].shape == (1, 1, 4, 8)


def test_hidden_of_an_mlp_are_its_layers(params_of):
    params = params_of(MLP_)
    outputs = MLP_.build(3).apply(params, batch_of(MLP_), None)
    assert [x.shape for x in outputs.hidden] == [(3, 5), (3, 6)]
    x = batch_of(MLP_)["inputs"]
    for name, found in zip(("layer_0", "layer_1"), outputs.hidden, strict=True):
        x = np.maximum(x @ params[name]["kernel"] + params[name]["bias"], 0)
        np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-6)


def test_an_mlp_flattens_images():
    images = {"inputs": jnp.ones((2, 4, 4, 1))}
    model = MLP(widths=(3,)).build(2)
    params = model.init(jax.random.key(0), images)
    assert params["layer_0"]["kernel"].shape == (16, 3)
    assert model.apply(params, images, None).logits.shape == (2, 2)


@pytest.mark.slow
@NETWORKS
def test_an_example_does_not_depend_on_its_batch(network, params_of):
    batch = batch_of(network)
    apply = network.build(3).apply
    whole = apply(params_of(network), batch, None).logits
    alone = apply(params_of(network), {"inputs": batch["inputs"][1:2]}, None).logits
    np.testing.assert_allclose(alone[0], whole[1], rtol=1e-4, atol=1e-6)


def test_group_norm_is_that_of_its_definition(params_of):
    """The stem, written out in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params_of(RESNET))
    images = np.asarray(batch_of(RESNET)["inputs"], np.float64)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = params["stem"]["kernel"]
    x = np.zeros((3, 6, 6, 4))
    for i, j in np.ndindex(3, 3):
        x += padded[:, i : i + 6, j : j + 6] @ kernel[i, j]
    groups = x.reshape(3, 6, 6, 2, 2)
    centred = groups - groups.mean((1, 2, 4), keepdims=True)
    variance = np.square(centred).mean((1, 2, 4), keepdims=True)
    norm = params["stem_norm"]
    x = (centred / np.sqrt(variance + 1e-6)).reshape(x.shape)
    x = np.maximum(x * norm["scale"] + norm["bias"], 0)
    found = RESNET.build(3).apply(params_of(RESNET), batch_of(RESNET), None).hidden[0]
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-5)


def test_dropout_needs_a_key(params_of):
    batch = batch_of(MLP_, 64)
    apply, params = MLP_.build(3).apply, params_of(MLP_)
    still = apply(params, batch, None).logits
    np.testing.assert_array_equal(apply(params, batch, None).logits, still)
    assert not np.array_equal(apply(params, batch, jax.random.key(3)).logits, still)


@NETWORKS
def test_bfloat16_keeps_logits_and_parameters_in_float32(network, params_of):
    model = network.build(3, compute_dtype="bfloat16")
    exact = network.build(3).apply(params_of(network), batch_of(network), None)
    outputs = model.apply(params_of(network), batch_of(network), None)
    assert outputs.logits.dtype == jnp.float32
    assert outputs.hidden[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(outputs.logits, exact.logits, rtol=0.1, atol=0.05)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch_of(network))
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("network", "num_params"),
    [(ResNet.resnet56(), 855_770), (ResNet.resnet20(), 272_474)],
)
def test_sizes_of_the_paper(network, num_params):
    """0.85 M and 0.27 M (he2016resnet, table 6)."""
    model = network.build(10)
    images = {"inputs": jnp.zeros((1, 32, 32, 3))}
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    kernels = [
        x for path, x in jax.tree.leaves_with_path(shapes) if path[-1].key == "kernel"
    ]
    # The stem, two for each block, the classifier; shortcuts do not count as layers.
    assert len(kernels) - 2 == 6 * network.num_blocks + 2
    assert sum(x.size for x in jax.tree.leaves(shapes)) == num_params


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet(widths=()), "widths needs positive numbers of channels"),
        (lambda: ResNet(widths=(8, 0)), "widths needs positive numbers of channels"),
        (lambda: ResNet(widths=(8.0,)), "widths needs .* whole ones"),  # pyrefly: ignore
        (lambda: ResNet(num_blocks=1.5), "num_blocks is 1.5, .* a whole number"),  # pyrefly: ignore
        (lambda: MLP(widths=(2.5,)), "widths needs .* whole ones"),  # pyrefly: ignore
        (lambda: ResNet(num_blocks=0), "num_blocks is 0, must be at least 1"),
        (lambda: ResNet(widths=(6,)), "width 6 is not divisible by num_groups 4"),
        (lambda: ResNet(stem_width=6), "width 6 is not divisible by num_groups 4"),
        (lambda: WideResNet(depth=14), "depth is 14, must be 10, 16, 22"),
        (lambda: WideResNet(num_groups=5), "width 16 is not divisible by num_groups 5"),
        (lambda: WideResNet(widen=0), "widen is 0, must be at least 1"),
        (lambda: MLP(widths=()), "widths needs positive numbers of units"),
        (lambda: MLP(dropout=1.0), r"dropout is 1.0, must be in \[0, 1\)"),
    ],
)
def test_impossible_sizes(make, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("network", "millions"),
    [
        # tian2020crd, section 4.1 and its code, with norms of as many parameters.
        (ResNet.resnet32x4(), 7.43),
        (ResNet.resnet8x4(), 1.23),
        (WideResNet.wrn_40_2(), 2.26),
        (WideResNet.wrn_16_2(), 0.70),
        (WideResNet.wrn_40_1(), 0.57),
    ],
)
def test_sizes_of_the_usual_pairs(network, millions):
    images = {"inputs": jnp.zeros((1, 32, 32, 3))}
    shapes = jax.eval_shape(network.build(100).init, jax.random.key(0), images)
    found = sum(x.size for x in jax.tree.leaves(shapes))
    assert found / 1e6 == pytest.approx(millions, abs=0.006)


def test_presets_may_be_changed():
    assert ResNet.resnet8(widths=(2,), num_groups=1) == ResNet(
        widths=(2,), num_groups=1, num_blocks=1
    )
    assert MLP.small(dropout=0.1) == MLP(widths=(32,), dropout=0.1)
    assert MLP.large(widths=(9,)).dropout == 0.3


def test_a_resnet_reads_images_only():
    model = RESNET.build(3)
    wide = WIDE.build(3)
    with pytest.raises(UserError, match="a WideResNet reads images"):
        wide.init(jax.random.key(0), {"inputs": jnp.ones((2, 7))})
    for batch, found in (
        ({"inputs": jnp.ones((2, 7))}, r"inputs \(2, 7\)"),
        ({"tokens": jnp.ones((2, 7), int)}, "no inputs"),
    ):
        with pytest.raises(UserError, match=rf"reads images.*a batch has {found}"):
            model.init(jax.random.key(0), batch)


def test_an_mlp_reads_no_text():
    with pytest.raises(UserError, match="a batch has no inputs"):
        MLP_.build(3).init(jax.random.key(0), {"tokens": jnp.ones((2, 7), int)})


# On disk.


@NETWORKS
def test_round_trip_is_exact(network, params_of, tmp_path):
    params = params_of(network)
    saved.save(tmp_path / "a", network, params, labels=LABELS)
    found, labels = saved.read_config(tmp_path / "a")
    assert (found, labels) == (network, LABELS)
    template = jax.eval_shape(found.build(3).init, jax.random.key(0), batch_of(network))
    loaded = saved.load(tmp_path / "a", found, template)
    assert (loaded.fresh, loaded.unread) == ((), ())
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)


@pytest.mark.slow
@pytest.mark.parametrize("network", [MLP_, Bert.tiny(vocab_size=9)])
def test_problem_type_is_stored(network, tmp_path):
    params = network.build(3).init(jax.random.key(0), batch_of(MLP_))
    saved.save(tmp_path, network, params, labels=LABELS, problem_type="regression")
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["problem_type"] == "regression"
    assert saved.read_config(tmp_path) == (network, LABELS)


def test_tensors_have_the_names_of_parameters(params_of, tmp_path):
    saved.save(tmp_path, MLP_, params_of(MLP_), labels=LABELS)
    assert safetensors.numpy.load_file(tmp_path / "model.safetensors").keys() == {
        f"{layer}.{leaf}"
        for layer in ("layer_0", "layer_1", "classifier")
        for leaf in ("kernel", "bias")
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "swin"},
            "model_type is 'swin'; expected one of bert, roberta, ",
        ),
        ({"model_type": "os.system"}, "model_type is 'os.system'"),
        ({"model_type": ["kd_mlp"]}, "model_type is ['kd_mlp']"),
        ({"depth": 3}, "depth is no field of a kd_mlp; it has widths, dropout"),
        ({"widths": [5, 0]}, "widths[1] is 0; expected a whole number from 1 to"),
        ({"widths": [5.0]}, "widths[0] is 5.0; expected a whole number"),
        ({"widths": [True]}, "widths[0] is True; expected a whole number"),
        ({"widths": [10**30]}, "widths[0] is 10000"),
        ({"widths": []}, "widths is []; expected a list of 1 to 1024 sizes"),
        ({"widths": "wide"}, "widths is 'wide'; expected a list"),
        ({"dropout": "0.1"}, "dropout is '0.1'; expected a small number"),
        ({"dropout": True}, "dropout is True; expected a small number"),
        ({"dropout": float("nan")}, "dropout is nan; expected a small number"),
        ({"dropout": 1}, "dropout is 1, must be in [0, 1)"),
        ({"id2label": ["cat"]}, "id2label is ['cat']; expected an object"),
        ({"id2label": {"0": "cat", "2": "dog"}}, 'with the keys "0", "1"'),
        ({"label2id": {LABELS[0]: 1}}, "they must agree"),
    ],
)
def test_a_damaged_config(params_of, tmp_path, changes, message):
    saved.save(tmp_path, MLP_, params_of(MLP_), labels=LABELS)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError) as refused:
        saved.read_config(tmp_path)
    assert str(refused.value).startswith(f"{path}: ") and message in str(refused.value)


def test_damaged_weights(params_of, tmp_path):
    template = params_of(MLP_)
    path = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        saved.load(tmp_path, MLP_, template)
    saved.save(tmp_path, MLP_, template, labels=LABELS)
    tensors = safetensors.numpy.load_file(path)
    kernel = tensors.pop("layer_0.kernel")
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(UserError, match=r"the weights lack layer_0\.kernel"):
        saved.load(tmp_path, MLP_, template)
    safetensors.numpy.save_file(tensors | {"layer_0.kernel": kernel[1:]}, path)
    with pytest.raises(UserError, match=r"is \[6, 5\], expected \[7, 5\]"):
        saved.load(tmp_path, MLP_, template)
    codes = kernel.astype(np.int8)
    safetensors.numpy.save_file(tensors | {"layer_0.kernel": codes}, path)
    with pytest.raises(
        UserError, match=r"layer_0\.kernel is of dtype I8; weights must"
    ):
        saved.load(tmp_path, MLP_, template)
    path.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="is not a safetensors file"):
        saved.load(tmp_path, MLP_, template)


def test_weights_are_missed_before_they_are_needed(params_of, tmp_path):
    saved.save(tmp_path, MLP_, params_of(MLP_), labels=LABELS)
    saved.fetch(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        saved.fetch(str(tmp_path))


@pytest.mark.parametrize(
    ("wanted", "found", "name"),
    [
        (MLP(widths=(5,)), MLP_, "widths"),
        (RESNET, dataclasses.replace(RESNET, num_blocks=2), "num_blocks"),
    ],
)
def test_a_deeper_network_is_not_loaded_in_part(wanted, found, name):
    check_same(found, found, "here")
    with pytest.raises(UserError, match=f"is not the student; it has {name}"):
        check_same(wanted, found, "here")


def test_an_unknown_class_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Mine:
        def build(self, num_classes, *, compute_dtype="float32"):
            raise AssertionError

    with pytest.raises(TypeError, match=r"Mine is not listed in kd\.models\.saved"):
        saved.model_type(Mine())


@pytest.mark.slow
def test_a_bert_goes_through_the_hub_format(tmp_path):
    bert = Bert(num_layers=1, width=8, num_heads=2, mlp_width=8, vocab_size=9)
    params = bert.build(3).init(jax.random.key(0), {})
    saved.save(tmp_path, bert, params, labels=LABELS)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
    assert saved.read_config(tmp_path) == (bert, LABELS)
    loaded = saved.load(tmp_path, bert, params).params
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
