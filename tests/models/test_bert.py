"""kd.models.bert against transformers' BertForSequenceClassification (tests/golden)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from kd.errors import UserError
from kd.models import bert_checkpoint
from kd.models.bert import Bert

DIRECTORY = Path(__file__).parents[1] / "golden" / "tiny_bert"


@pytest.fixture(scope="module")
def golden():
    with np.load(DIRECTORY / "expected.npz") as arrays:
        return {name: jnp.asarray(arrays[name]) for name in arrays}


@pytest.fixture(scope="module")
def batch(golden):
    return {name: golden[name] for name in ("tokens", "token_mask", "segments")}


@pytest.fixture(scope="module")
def bert():
    return bert_checkpoint.read_config(DIRECTORY).bert


@pytest.fixture(scope="module")
def model(bert):
    return bert.build(3)


@pytest.fixture(scope="module")
def params(model, batch):
    template = jax.eval_shape(model.init, jax.random.key(0), batch)
    return bert_checkpoint.load_pretrained(DIRECTORY, template).params


@pytest.fixture(scope="module")
def outputs(model, params, batch):
    return jax.jit(model.apply)(params, batch, None)


def test_outputs_equal_transformers(golden, outputs):
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(outputs.logits, golden["logits"], **close)
    np.testing.assert_allclose(jnp.stack(outputs.hidden), golden["hidden"], **close)
    np.testing.assert_allclose(
        jnp.stack(outputs.attention), golden["attention"], **close
    )


def test_missing_segments_are_zeros(golden, model, params, batch):
    without = {name: batch[name] for name in ("tokens", "token_mask")}
    logits = jax.jit(model.apply)(params, without, None).logits
    np.testing.assert_allclose(logits, golden["logits_without_segments"], atol=1e-5)


def test_gradients_equal_transformers(golden, bert, model, params, batch, tmp_path):
    def loss(params):
        logits = model.apply(params, batch, None).logits
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, golden["labels"]
        ).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-5)
    # Gradients have the shapes of parameters: saving names them as torch does.
    bert_checkpoint.save_pretrained(tmp_path, bert, gradient)
    found = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    expected = {
        name.removeprefix("gradient/"): array
        for name, array in golden.items()
        if name.startswith("gradient/")
    }
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(
            found[name], array, rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_padding_changes_nothing(model, params, batch, outputs):
    alone = {name: array[1:2, :7] for name, array in batch.items()}
    unpadded = jax.jit(model.apply)(params, alone, None)
    np.testing.assert_allclose(outputs.logits[1], unpadded.logits[0], atol=1e-5)
    np.testing.assert_allclose(
        outputs.hidden[-1][1, :7], unpadded.hidden[-1][0], atol=1e-5
    )
    assert not np.any(outputs.attention[0][1, :, :, 7:])


def test_row_of_padding_alone_is_finite(model, params, batch):
    batch = batch | {"token_mask": batch["token_mask"].at[1].set(False)}

    def total(params):
        outputs = model.apply(params, batch, None)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(outputs))

    value, gradient = jax.jit(jax.value_and_grad(total))(params)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_bfloat16_is_close(bert, params, batch, outputs):
    rounded = jax.jit(bert.build(3, compute_dtype="bfloat16").apply)(
        params, batch, None
    )
    assert rounded.logits.dtype == rounded.attention[0].dtype == jnp.float32
    assert rounded.hidden[-1].dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.logits, outputs.logits, atol=0.15)
    assert float(jnp.std(outputs.logits)) > 0.5  # so that 0.15 means something


def test_dropout_keeps_the_mean(model, params, batch, outputs):
    many = jax.jit(jax.vmap(lambda key: model.apply(params, batch, key).hidden[0]))
    mean = many(jax.random.split(jax.random.key(3), 2000)).mean(0)
    exact = outputs.hidden[0]
    # The mean of 2000 has a standard error of |x| * sqrt(0.1 / 0.9 / 2000).
    np.testing.assert_array_less(jnp.abs(mean - exact), 6 * jnp.abs(exact) * 0.0075)


@pytest.mark.parametrize("place", ["dropout", "attention_dropout"])
def test_dropout_follows_the_key(bert, params, batch, outputs, place):
    rates = {"dropout": 0.0, "attention_dropout": 0.0} | {place: 0.1}
    apply = jax.jit(Bert(**vars(bert) | rates).build(3).apply)
    first, again, other = (
        apply(params, batch, jax.random.key(seed)).logits for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first, outputs.logits)


def test_sharding_the_batch_changes_nothing(bert, params):
    if jax.device_count() < 4:
        pytest.skip("one device")
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    batch = {
        "tokens": jax.random.randint(jax.random.key(0), (8, 5), 0, 64),
        "token_mask": jnp.ones((8, 5), bool),
    }
    sharded = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    one_layer = Bert(**vars(bert) | {"num_layers": 1})
    apply = jax.jit(one_layer.build(3).apply)
    key = jax.random.key(7)
    np.testing.assert_allclose(
        apply(params, batch, key).logits, apply(params, sharded, key).logits, atol=1e-5
    )


@pytest.mark.parametrize(
    ("bert", "published"),
    [
        (Bert.base(), 109_482_240),
        (Bert.six_layer(), 66_955_008),
        (Bert.medium(), 41_373_184),
        (Bert.small(), 28_763_648),
        (Bert.mini(), 11_170_560),
        (Bert.tiny(), 4_385_920),
    ],
)
def test_presets_have_the_published_sizes(bert, published, key):
    params = dict(jax.eval_shape(bert.build(2).init, key, {}))
    head = params.pop("classifier")
    assert sum(leaf.size for leaf in jax.tree.leaves(head)) == 2 * bert.width + 2
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == published
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}


def test_presets_take_changes():
    bert = Bert.tiny(vocab_size=100, num_layers=1, dropout=0.2)
    assert (bert.vocab_size, bert.num_layers, bert.width) == (100, 1, 128)
    assert Bert.six_layer(num_layers=3).num_layers == 3


def test_fresh_weights_have_the_given_spread(key):
    bert = Bert.tiny(vocab_size=500, num_layers=1, initializer_stddev=0.05)
    params = jax.jit(bert.build(2).init)(key, {})
    for array in (
        params["embeddings"]["tokens"],
        params["layer_0"]["mlp_in"]["kernel"],
    ):
        assert float(array.std()) == pytest.approx(0.05, rel=0.03)
        assert float(array.mean()) == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 130}, "width 130 is not divisible by num_heads 12"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"attention_dropout": -0.1}, "attention_dropout is -0.1"),
        ({"layer_norm_epsilon": 0.0}, "layer_norm_epsilon is 0.0"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Bert(**changes)


def test_too_long_a_batch_is_refused(model, params):
    batch = {
        "tokens": jnp.zeros((1, 25), jnp.int32),
        "token_mask": jnp.ones((1, 25), bool),
    }
    with pytest.raises(UserError, match=r"25 tokens .* at most 24"):
        model.apply(params, batch, None)
