"""Encoder-decoders against transformers' of the same weights (tests/golden)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from models.tiny_seq2seq import NAMES, Tiny

from kd.errors import UserError
from kd.models import (
    bart,
    bart_checkpoint,
    checkpoint,
    distances,
    seq2seq,
    t5,
    t5_checkpoint,
)
from kd.models.bart import Bart
from kd.models.t5 import T5

TABLES = {T5: t5_checkpoint.TABLE, Bart: bart_checkpoint.TABLE}
MODELS = {T5: t5._model, Bart: bart._model}


@pytest.fixture(scope="module", params=NAMES)
def tiny(request):
    return Tiny(request.param)


def loss(model, params, batch):
    """Of the targets."""
    tokens, mask = batch["target_tokens"], batch["target_mask"]
    log_probs = jax.nn.log_softmax(model.apply(params, batch, None).logits)
    of_target = jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]
    return -(of_target * mask).sum() / mask.sum()


def test_outputs_equal_transformers(tiny):
    tiny.check_states(tiny.outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_values_and_gradients_equal_transformers_in_float64(tiny, x64):
    network = tiny.network
    model = MODELS[type(network)](network, network.vocab_size, jnp.dtype("float64"))
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), tiny.params)
    close = {"rtol": 1e-9, "atol": 1e-10}
    tiny.check_states(jax.jit(model.apply)(params, tiny.batch, None), **close)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda params: loss(model, params, tiny.batch))
    )(params)
    np.testing.assert_allclose(value, tiny.golden["loss"], **close)
    check_gradients(tiny, gradient, **close)


@pytest.mark.slow
def test_gradients_equal_transformers(tiny):
    gradient = jax.jit(jax.grad(lambda params: loss(tiny.model, params, tiny.batch)))(
        tiny.params
    )
    check_gradients(tiny, gradient, rtol=1e-4, atol=1e-4)


def check_gradients(tiny, gradient, **close):
    table = TABLES[type(tiny.network)]
    names = set()
    for path, leaf in jax.tree.leaves_with_path(gradient):
        name = table.name(path)
        found = checkpoint._turned(path, np.asarray(leaf), table)
        if name in table.buffers.values():
            assert not np.any(found)
            continue
        expected = tiny.golden[f"gradient/{name}"]
        np.testing.assert_allclose(found, expected, err_msg=name, **close)
        names.add(f"gradient/{name}")
    assert names == {x for x in tiny.golden if x.startswith("gradient/")}


def test_targets_are_shifted():
    tokens = jnp.array([[5, 6, 7, 0], [0, 0, 8, 9], [0, 0, 0, 0]])
    mask = jnp.array([[1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    found = seq2seq.shifted(tokens, mask, 2)
    np.testing.assert_array_equal(found[0], [2, 5, 6, 7])
    np.testing.assert_array_equal(found[1, 2:], [2, 8])


@pytest.mark.slow
@pytest.mark.parametrize("what", ["source", "target"])
def test_padding_on_either_side_changes_nothing(tiny, what):
    names = ("tokens", "token_mask", "target_tokens", "target_mask")
    own = names[:2] if what == "source" else names[2:]
    apply = jax.jit(tiny.model.apply)
    width = 11
    for row, shift in ((0, 1), (1, 4), (1, 0)):
        real = np.asarray(tiny.batch[own[1]][row])
        place = np.arange(width)
        mask = (place >= shift) & (place < shift + real.sum())
        tokens = np.full(width, 13, np.int32)
        tokens[mask] = np.asarray(tiny.batch[own[0]][row])[real]
        alone = {name: x[row : row + 1] for name, x in tiny.batch.items()}
        moved = alone | dict(zip(own, (tokens[None], mask[None]), strict=True))
        outputs = apply(tiny.params, moved, None)
        target = tiny.real_target[row]
        at = mask if what == "target" else target
        for found, expected in (
            (outputs.logits, tiny.outputs.logits),
            *zip(outputs.hidden, tiny.outputs.hidden, strict=True),
        ):
            np.testing.assert_allclose(
                found[0, at], expected[row, target], rtol=1e-4, atol=1e-4
            )
        if what == "target":
            seen = [(probs, mask) for probs in outputs.attention]
        else:
            seen = [(probs, mask) for probs in outputs.source_attention]
            seen += [(probs, target) for probs in outputs.cross_attention]
            np.testing.assert_allclose(
                outputs.source_hidden[-1][0, mask],
                tiny.outputs.source_hidden[-1][row, real],
                rtol=1e-4,
                atol=1e-4,
            )
        for probs, queries in seen:
            assert not np.any(np.asarray(probs[0])[:, queries][..., ~mask])


def test_a_token_does_not_see_those_it_is_to_predict(tiny):
    batch = {name: x[1:2] for name, x in tiny.batch.items()}
    tokens = batch["target_tokens"]
    changed = batch | {"target_tokens": tokens.at[0, 3].set(tokens[0, 3] % 23 + 1)}
    apply = jax.jit(tiny.model.apply)
    before, after = (apply(tiny.params, x, None).logits[0] for x in (batch, changed))
    np.testing.assert_array_equal(before[:4], after[:4])
    assert np.all(np.abs(before[4:] - after[4:]).max(axis=-1) > 1e-5)


def test_all_of_the_source_matters_everywhere(tiny):
    batch = {name: x[:1] for name, x in tiny.batch.items()}
    apply = jax.jit(tiny.model.apply)
    before = apply(tiny.params, batch, None).logits[0, :4]
    for place in (0, 8):
        tokens = batch["tokens"]
        changed = batch | {"tokens": tokens.at[0, place].set(tokens[0, place] % 23 + 1)}
        after = apply(tiny.params, changed, None).logits[0, :4]
        assert np.all(np.abs(before - after).max(axis=-1) > 0)


@pytest.mark.slow
def test_rows_of_padding_alone_are_finite(tiny):
    batch = tiny.batch | {
        "token_mask": jnp.zeros((3, 9), bool),
        "target_mask": jnp.zeros((3, 7), bool),
    }

    def total(params):
        outputs = tiny.model.apply(params, batch, None)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(outputs))

    value, gradient = jax.jit(jax.value_and_grad(total))(tiny.params)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_tokens_that_there_are_have_logits_and_padding_has_none(tiny):
    fewer = jax.jit(tiny.network.build(20).apply)(tiny.params, tiny.batch, None)
    np.testing.assert_allclose(
        fewer.logits, tiny.outputs.logits[..., :20], rtol=1e-4, atol=1e-4
    )
    with pytest.raises(UserError, match=r"logits over 25 tokens .* embeddings for 24"):
        tiny.network.build(25)


def test_bfloat16_is_close(tiny):
    model = tiny.network.build(compute_dtype="bfloat16")
    rounded = jax.jit(model.apply)(tiny.params, tiny.batch, None)
    assert rounded.logits.dtype == rounded.cross_attention[0].dtype == jnp.float32
    assert rounded.hidden[-1].dtype == rounded.source_hidden[0].dtype == jnp.bfloat16
    target = tiny.real_target
    difference = rounded.logits[target] - tiny.outputs.logits[target]
    # The same weights and half the digits.
    spread = float(jnp.std(tiny.outputs.logits[target]))
    assert float(jnp.std(difference)) < 0.05 * spread


@pytest.mark.slow
def test_remat_changes_nothing_but_what_is_kept(tiny):
    fields = vars(tiny.network) | {"remat": True}
    other = type(tiny.network)(**fields).build()

    def of(model):
        return jax.value_and_grad(lambda params: loss(model, params, tiny.batch))

    kept, again = jax.jit(of(tiny.model)), jax.jit(of(other))
    shapes = jax.eval_shape(other.init, jax.random.key(0), {})
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, tiny.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        again(tiny.params),
        kept(tiny.params),
    )
    assert "remat" in str(jax.make_jaxpr(of(other))(tiny.params))


@pytest.mark.slow
def test_dropout_is_on_with_a_key_only(tiny):
    network = tiny.network
    still = {name: 0.0 for name in vars(network) if name.endswith("dropout")}
    none = type(network)(**(vars(network) | still)).build()
    key = jax.random.key(3)
    apply = jax.jit(tiny.model.apply)
    dropped = apply(tiny.params, tiny.batch, key).logits
    assert np.abs(dropped - tiny.outputs.logits)[tiny.real_target].max() > 0.01
    np.testing.assert_array_equal(dropped, apply(tiny.params, tiny.batch, key).logits)
    np.testing.assert_allclose(
        jax.jit(none.apply)(tiny.params, tiny.batch, key).logits,
        tiny.outputs.logits,
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.slow
def test_sharding_the_batch_changes_nothing(tiny):
    if jax.device_count() < 4:
        pytest.skip("one device")
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    batch = {
        "tokens": jax.random.randint(jax.random.key(0), (8, 5), 0, 24),
        "token_mask": jnp.ones((8, 5), bool),
        "target_tokens": jax.random.randint(jax.random.key(1), (8, 4), 0, 24),
        "target_mask": jnp.ones((8, 4), bool),
    }
    sharded = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    apply = jax.jit(tiny.model.apply)
    np.testing.assert_allclose(
        apply(tiny.params, batch, None).logits,
        apply(tiny.params, sharded, None).logits,
        atol=1e-4,
    )


def test_what_is_no_pair_of_texts_is_refused(tiny):
    with pytest.raises(UserError, match="a batch has no tokens"):
        tiny.model.apply(tiny.params, {}, None)
    with pytest.raises(UserError, match="a batch has no target_tokens"):
        tiny.model.apply(tiny.params, tiny.source, None)


@pytest.mark.parametrize("what", ["source", "target"])
def test_too_long_a_text_is_refused(what):
    tiny = Tiny("bart")
    prefix = "" if what == "source" else "target_"
    long = {
        "tokens" if not prefix else "target_tokens": jnp.zeros((3, 33), jnp.int32),
        "token_mask" if not prefix else "target_mask": jnp.ones((3, 33), bool),
    }
    with pytest.raises(UserError, match=rf"33 tokens per {what}; .* at most 32"):
        tiny.model.apply(tiny.params, tiny.batch | long, None)


# --- the cache ---


@pytest.mark.slow
def test_cached_logits_equal_uncached(tiny):
    """Whatever the source's padding, read token by token."""
    decoder = tiny.model.decoder
    logits, cache = jax.jit(decoder.start, static_argnums=2)(
        tiny.params, tiny.source, 7
    )
    step = jax.jit(decoder.step)
    for i in range(7):
        # Without a cache what comes later is not seen, be it padding or not.
        np.testing.assert_allclose(
            logits[tiny.real_target[:, i]],
            tiny.outputs.logits[:, i][tiny.real_target[:, i]],
            rtol=1e-4,
            atol=1e-4,
        )
        if i < 6:
            logits, cache = step(tiny.params, cache, tiny.batch["target_tokens"][:, i])


@pytest.mark.slow
def test_the_source_is_read_once(tiny):
    start = jax.jit(tiny.model.decoder.start, static_argnums=2)
    _, cache = start(tiny.params, tiny.source, 4)
    assert len(cache.source) == tiny.network.num_decoder_layers
    unknown = jax.tree.map(jnp.zeros_like, tiny.params["encoder"])
    without = tiny.params | {"encoder": unknown}
    step, tokens = jax.jit(tiny.model.decoder.step), jnp.array([4, 9, 7])
    (found, after), (expected, _) = (
        step(params, cache, tokens) for params in (without, tiny.params)
    )
    np.testing.assert_array_equal(found, expected)
    jax.tree.map(np.testing.assert_array_equal, after.source, cache.source)


def test_a_cache_of_other_texts(tiny):
    decoder = tiny.model.decoder
    start = jax.jit(decoder.start, static_argnums=2)
    rows = jnp.array([2, 0, 0])
    _, cache = start(tiny.params, tiny.source, 2)
    picked = jax.tree.map(lambda x: x[rows], cache)
    of_rows = {name: x[rows] for name, x in tiny.source.items()}
    _, expected = start(tiny.params, of_rows, 2)
    tokens, step = jnp.array([4, 9, 7]), jax.jit(decoder.step)
    np.testing.assert_allclose(
        step(tiny.params, picked, tokens)[0],
        step(tiny.params, expected, tokens)[0],
        atol=1e-4,
    )


def test_no_room_to_write():
    tiny = Tiny("bart")
    with pytest.raises(UserError, match=r"33 tokens per text that is to be written"):
        tiny.model.decoder.start(tiny.params, tiny.source, 33)


# --- buckets, sizes ---


def test_buckets_by_their_definition():
    """Distances of their own up to k / 2, then as many for each factor."""
    distance = jnp.arange(-200, 201)
    found = np.asarray(
        distances.bucket(distance, bidirectional=True, num_buckets=32, max_distance=128)
    )
    before, behind = found[:201][::-1], found[200:]
    np.testing.assert_array_equal(before[:9], range(9))
    np.testing.assert_array_equal(behind[1:], before[1:] + 16)
    # Of the 8 others, each is 16^(1/8) = √2 as wide as the one before.
    edges = [int(np.argmax(before == b)) for b in range(8, 16)]
    assert edges == [8, 12, 16, 23, 32, 46, 64, 91]
    assert before[127] == before[200] == 15
    one = np.asarray(
        distances.bucket(
            distance, bidirectional=False, num_buckets=32, max_distance=128
        )
    )
    assert not np.any(one[200:])
    np.testing.assert_array_equal(one[200:183:-1], range(17))
    assert one[0] == 31


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "millions"),
    [
        (T5, "small", 60.5),
        (T5, "base", 222.9),
        (T5, "large", 737.7),
        (T5, "flan_small", 77.0),
        (T5, "flan_base", 247.6),
        (T5, "flan_large", 783.2),
        (T5, "t0_3b", 2849.8),
        (Bart, "base", 139.4),
        (Bart, "large", 406.3),
        (Bart, "distil_12_6", 305.5),
    ],
)
def test_sizes_are_those_of_the_published_ones(kind, name, millions):
    network = getattr(kind, name)()
    shapes = jax.eval_shape(network.build().init, jax.random.key(0), {})
    shapes.pop("head_bias", None)
    found = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert found / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.slow
def test_fresh_weights_have_the_spread_of_transformers():
    network = T5(vocab_size=100, num_layers=1, num_decoder_layers=1, mlp_width=512)
    params = jax.jit(network.build().init)(jax.random.key(0), {})
    layer = params["decoder"]["layer_0"]
    spread = {
        "query": (512 * 64) ** -0.5, "key": 512**-0.5, "value": 512**-0.5,
        "out": 512**-0.5,
    }  # fmt: skip
    for name, expected in spread.items():
        for part in ("attention", "cross_attention"):
            found = float(jnp.std(layer[part][name]["kernel"]))
            assert found == pytest.approx(expected, rel=0.02)
    assert float(jnp.std(params["embeddings"])) == pytest.approx(1, rel=0.02)
    assert float(jnp.std(layer["mlp_out"]["kernel"])) == pytest.approx(
        512**-0.5, rel=0.02
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        (T5, {"width": 0}, "width is 0, must be at least 1"),
        (T5, {"dropout": 1.0}, r"dropout is 1\.0, must be in"),
        (T5, {"norm_epsilon": 0.0}, "norm_epsilon is 0.0, must be positive"),
        (T5, {"num_buckets": 3}, "num_buckets is 3, must be at least 4"),
        (T5, {"max_distance": 16}, "max_distance is 16, must be more than half"),
        (T5, {"start_token": 32128}, r"start_token is 32128, must be in \[0, 32128\)"),
        (Bart, {"num_layers": 0}, "num_layers is 0, must be at least 1"),
        (Bart, {"mlp_dropout": -0.1}, r"mlp_dropout is -0\.1, must be in"),
        (Bart, {"num_heads": 5}, "width 1024 is not divisible by num_heads 5"),
        (Bart, {"start_token": -1}, "start_token is -1, must be in"),
        (Bart, {"initializer_stddev": 0.0}, "initializer_stddev is 0.0, must be pos"),
    ],
)
def test_impossible_sizes_are_refused(network, settings, message):
    with pytest.raises(ValueError, match=message):
        network(**settings)
