"""Vision transformers: what they compute, sizes, and their way to disk and back."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from kd.errors import UserError
from kd.models import saved
from kd.models.vit import ViT

LABELS = ("cat", "dog", "frog")
VIT = ViT(patch_size=4, num_layers=2, width=12, num_heads=3, mlp_width=20)
DEIT = dataclasses.replace(VIT, distillation_token=True)
NETWORKS = {"vit": VIT, "deit": DEIT}
EACH = pytest.mark.parametrize("name", NETWORKS)
IMAGES = np.random.default_rng(1).normal(size=(3, 8, 8, 2)).astype(np.float32)
BATCH = {"inputs": jnp.asarray(IMAGES)}


def random_params(network):
    shapes = jax.eval_shape(network.build(3).init, jax.random.key(0), BATCH)
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: random.normal(0, 0.3, x.shape).astype(np.float32), shapes
    )


def load(directory):
    network, labels = saved.read_config(directory)
    model = network.build(len(labels))
    template = jax.eval_shape(model.init, jax.random.key(0), BATCH)
    return network, labels, saved.load(directory, network, template)


def test_squares_stand_row_by_row():
    """Each with its pixels row by row, as the checkpoint's convolution reads them."""
    images = np.arange(2 * 8 * 8 * 2).reshape(2, 8, 8, 2)
    found = VIT._patches({"inputs": jnp.asarray(images, jnp.float32)})
    assert found.shape == (2, 4, 32)
    np.testing.assert_array_equal(found[1, 2], images[1, 4:, :4].reshape(-1))


def test_logits_are_the_mean_of_the_heads():
    params = random_params(DEIT)
    outputs = DEIT.build(3).apply(params, BATCH, None)
    assert [x.shape for x in outputs.hidden] == [(3, 6, 12)] * 3
    assert [x.shape for x in outputs.attention] == [(3, 3, 6, 6)] * 2
    first, second = outputs.head_logits
    np.testing.assert_allclose(outputs.logits, (first + second) / 2, rtol=1e-6)
    assert not np.allclose(first, second)
    assert VIT.build(3).apply(random_params(VIT), BATCH, None).head_logits == ()


def test_attention_is_that_of_its_definition():
    """The first layer's, in float64."""
    params = random_params(VIT)
    outputs = VIT.build(3).apply(params, BATCH, None)
    layer = jax.tree.map(lambda x: np.asarray(x, np.float64), params["layer_0"])
    x = np.asarray(outputs.hidden[0], np.float64)
    centred = x - x.mean(-1, keepdims=True)
    y = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-12)
    y = y * layer["attention_norm"]["scale"] + layer["attention_norm"]["bias"]
    query, key = (
        (y @ layer[name]["kernel"] + layer[name]["bias"]).reshape(3, 5, 3, 4)
        for name in ("query", "key")
    )
    scores = np.exp(np.einsum("bqhd,bkhd->bhqk", query, key) / 2)
    expected = scores / scores.sum(-1, keepdims=True)
    np.testing.assert_allclose(outputs.attention[0], expected, rtol=1e-4, atol=1e-6)


def test_dropout_needs_a_key():
    network = dataclasses.replace(VIT, dropout=0.3, attention_dropout=0.2)
    apply, params = network.build(3).apply, random_params(network)
    still = apply(params, BATCH, None).logits
    np.testing.assert_array_equal(VIT.build(3).apply(params, BATCH, None).logits, still)
    assert not np.array_equal(apply(params, BATCH, jax.random.key(3)).logits, still)


def test_bfloat16_keeps_logits_and_parameters_in_float32():
    params = random_params(DEIT)
    exact = DEIT.build(3).apply(params, BATCH, None)
    model = DEIT.build(3, compute_dtype="bfloat16")
    outputs = model.apply(params, BATCH, None)
    assert outputs.logits.dtype == jnp.float32
    assert outputs.hidden[-1].dtype == jnp.bfloat16
    np.testing.assert_allclose(outputs.logits, exact.logits, rtol=0.1, atol=0.1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), BATCH)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("network", "millions"),
    [
        # touvron2021deit, table 1.
        (ViT.tiny(), 5.7),
        (ViT.small(), 22.1),
        (ViT.base(), 86.6),
    ],
)
def test_sizes_of_the_paper(network, millions):
    images = {"inputs": jnp.zeros((1, 224, 224, 3))}
    shapes = jax.eval_shape(network.build(1000).init, jax.random.key(0), images)
    found = sum(x.size for x in jax.tree.leaves(shapes))
    assert found / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 10}, "width 10 is not divisible by num_heads 3"),
        ({"patch_size": 0}, "patch_size is 0, must be at least 1"),
        ({"dropout": 1.0}, r"dropout is 1\.0, must be in \[0, 1\)"),
        ({"layer_norm_epsilon": 0.0}, r"layer_norm_epsilon is 0\.0, must be positive"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(VIT, **changes)


def test_images_that_do_not_fit_are_refused():
    model, params = VIT.build(3), random_params(VIT)
    with pytest.raises(UserError, match="squares of 4 x 4, which do not fit 8 x 6"):
        model.init(jax.random.key(0), {"inputs": jnp.ones((1, 8, 6, 2))})
    with pytest.raises(UserError, match=r"has images of 2 squares .* positions for 4"):
        model.apply(params, {"inputs": jnp.ones((1, 8, 4, 2))}, None)
    with pytest.raises(UserError, match=r"a ViT reads images .* has no inputs"):
        model.init(jax.random.key(0), {"tokens": jnp.ones((2, 7), int)})


# On disk.


@EACH
def test_round_trip_is_exact(name, tmp_path):
    network, params = NETWORKS[name], random_params(NETWORKS[name])
    saved.save(tmp_path, network, params, labels=LABELS)
    found, labels, loaded = load(tmp_path)
    assert (found, labels) == (network, LABELS)
    assert (loaded.fresh, loaded.unread) == ((), ())
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    assert saved.model_type(network) == name
    saved.fetch(str(tmp_path))


def changed(directory, change):
    path = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


@EACH
def test_a_body_alone_keeps_the_fresh_heads(name, tmp_path):
    network, params = NETWORKS[name], random_params(NETWORKS[name])
    saved.save(tmp_path, network, params, labels=LABELS)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    body = {
        key.removeprefix(f"{name}."): x
        for key, x in tensors.items()
        if "classifier" not in key
    }
    safetensors.numpy.save_file(body | {"pooler.dense.bias": np.ones(3)}, path)
    fresh = jax.tree.map(lambda x: x + 1, params)
    loaded = saved.load(tmp_path, network, fresh)
    assert loaded.fresh == ("classifier",)
    assert loaded.unread == ("pooler.dense.bias",)
    expected = params | {"classifier": fresh["classifier"]}
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected)


def test_all_that_does_not_fit_is_told(tmp_path):
    params = random_params(VIT)
    saved.save(tmp_path, VIT, params, labels=LABELS)

    def damage(tensors):
        del tensors["vit.layernorm.bias"]
        positions = "vit.embeddings.position_embeddings"
        tensors[positions] = np.ones((1, 6, 12), np.float32)

    changed(tmp_path, damage)
    with pytest.raises(UserError) as refused:
        saved.load(tmp_path, VIT, params)
    assert "they lack layernorm.bias" in str(refused.value)
    assert "position_embeddings is [1, 6, 12], which does not" in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; only 'gelu' is supported"),
        ({"qkv_bias": False}, "qkv_bias is False; only True is supported"),
        ({"hidden_size": 13}, "width 13 is not divisible by num_heads 3"),
        ({"patch_size": [4, 4]}, "patch_size is [4, 4]; expected a whole number"),
        ({"hidden_size": None}, "has no hidden_size"),
        (
            {"architectures": ["DeiTForImageClassification"]},
            "drops the distillation token's classifier",
        ),
    ],
)
def test_what_is_not_computed_is_refused(changes, message, tmp_path):
    saved.save(tmp_path, DEIT, random_params(DEIT), labels=LABELS)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError) as refused:
        saved.read_config(tmp_path)
    assert message in str(refused.value)
    assert str(refused.value).startswith(str(path))


# --- transformers ---


def check_like_transformers(network, params, theirs, **close):
    """Logits of every head, hidden states, attention; and the gradient of a loss."""
    torch = pytest.importorskip("torch")
    pixels = torch.tensor(IMAGES.transpose(0, 3, 1, 2))
    expected = theirs(pixels, output_hidden_states=True, output_attentions=True)
    apply = jax.jit(network.build(3).apply)
    outputs = apply(params, BATCH, None)
    np.testing.assert_allclose(outputs.logits, expected.logits.detach(), **close)
    if network.distillation_token:
        each = (expected.cls_logits.detach(), expected.distillation_logits.detach())
        np.testing.assert_allclose(outputs.head_logits, each, **close)
    for ours, there in (
        (outputs.hidden, expected.hidden_states),
        (outputs.attention, expected.attentions),
    ):
        assert len(ours) == len(there)
        for found, states in zip(ours, there, strict=True):
            np.testing.assert_allclose(found, states.detach(), **close)
    weights = np.random.default_rng(2).normal(size=(3, 3)).astype(np.float32)
    theirs.zero_grad()
    (expected.logits * torch.tensor(weights)).sum().backward()
    return jax.jit(jax.grad(lambda p: (apply(p, BATCH, None).logits * weights).sum()))(
        params
    )


def in_transformers(directory):
    transformers = pytest.importorskip("transformers")
    kind = json.loads((directory / "config.json").read_text())["architectures"][0]
    found, info = getattr(transformers, kind).from_pretrained(
        directory, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values()), info
    return found.eval()


@EACH
def test_transformers_computes_the_same(name, tmp_path):
    pytest.importorskip("torch")
    network, params = NETWORKS[name], random_params(NETWORKS[name])
    saved.save(tmp_path / "new", network, params, labels=LABELS)
    theirs = in_transformers(tmp_path / "new")
    gradient = check_like_transformers(network, params, theirs, rtol=1e-4, atol=1e-5)
    # Gradients by the names of weights: those of a network that holds them instead.
    saved.save(tmp_path / "gradient", network, gradient, labels=LABELS)
    named = dict(in_transformers(tmp_path / "gradient").named_parameters())
    for key, parameter in theirs.named_parameters():
        np.testing.assert_allclose(
            named[key].detach(), parameter.grad, err_msg=key, rtol=1e-3, atol=1e-4
        )


@EACH
def test_what_transformers_saves_is_read(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config, classes = {
        "vit": (transformers.ViTConfig, transformers.ViTForImageClassification),
        "deit": (
            transformers.DeiTConfig,
            transformers.DeiTForImageClassificationWithTeacher,
        ),
    }[name]
    torch.manual_seed(0)
    theirs = classes._from_config(
        config(
            hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
            intermediate_size=20, image_size=8, patch_size=4, num_channels=2,
            num_labels=3,
        ),
        attn_implementation="eager",
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.3)
    theirs.save_pretrained(tmp_path)
    network, _, loaded = load(tmp_path)
    assert (loaded.fresh, loaded.unread) == ((), ())
    assert network == NETWORKS[name]
    check_like_transformers(network, loaded.params, theirs, rtol=1e-4, atol=1e-5)
