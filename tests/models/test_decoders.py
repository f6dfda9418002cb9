"""Decoder-only networks against transformers' of the same weights (tests/golden)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from models.tiny_decoders import NAMES, Tiny

from kd.errors import UserError
from kd.models import (
    checkpoint,
    gpt2,
    gpt2_checkpoint,
    llama,
    llama_checkpoint,
)
from kd.models.gpt2 import GPT2
from kd.models.llama import Llama

TABLES = {GPT2: gpt2_checkpoint.TABLE, Llama: llama_checkpoint.TABLE}
MODELS = {GPT2: gpt2._model, Llama: llama._model}


@pytest.fixture(scope="module", params=NAMES)
def tiny(request):
    return Tiny(request.param)


def loss(model, params, batch):
    """Of the next tokens, where both are real."""
    tokens, mask = batch["tokens"], batch["token_mask"]
    log_probs = jax.nn.log_softmax(model.apply(params, batch, None).logits[:, :-1])
    of_next = jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
    predicted = mask[:, :-1] & mask[:, 1:]
    return -(of_next * predicted).sum() / predicted.sum()


def test_outputs_equal_transformers(tiny):
    golden, real = tiny.golden, tiny.real
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(
        tiny.outputs.logits[real], golden["logits"][real], **close
    )
    hidden, attention = map(np.stack, (tiny.outputs.hidden, tiny.outputs.attention))
    np.testing.assert_allclose(hidden[:, real], golden["hidden"][:, real], **close)
    by_query = (0, 1, 3, 2, 4)
    np.testing.assert_allclose(
        attention.transpose(by_query)[:, real],
        golden["attention"].transpose(by_query)[:, real],
        **close,
    )


def test_values_and_gradients_equal_transformers_in_float64(tiny, x64):
    golden, real = tiny.golden, tiny.real
    network = tiny.network
    model = MODELS[type(network)](network, network.vocab_size, jnp.dtype("float64"))
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), tiny.params)
    outputs = jax.jit(model.apply)(params, tiny.batch, None)
    close = {"rtol": 1e-9, "atol": 1e-10}
    np.testing.assert_allclose(outputs.logits[real], golden["logits"][real], **close)
    np.testing.assert_allclose(
        np.stack(outputs.hidden)[:, real], golden["hidden"][:, real], **close
    )
    value, gradient = jax.jit(
        jax.value_and_grad(lambda params: loss(model, params, tiny.batch))
    )(params)
    np.testing.assert_allclose(value, golden["loss"], **close)
    check_gradients(tiny, gradient, **close)


def test_gradients_equal_transformers(tiny):
    gradient = jax.jit(jax.grad(lambda params: loss(tiny.model, params, tiny.batch)))(
        tiny.params
    )
    check_gradients(tiny, gradient, rtol=1e-4, atol=1e-5)


def check_gradients(tiny, gradient, **close):
    table = TABLES[type(tiny.network)]
    names = set()
    for path, leaf in jax.tree.leaves_with_path(gradient):
        name = table.name(path)
        found = checkpoint._turned(path, np.asarray(leaf), table)
        expected = tiny.golden[f"gradient/{name}"]
        np.testing.assert_allclose(found, expected, err_msg=name, **close)
        names.add(f"gradient/{name}")
    assert names == {x for x in tiny.golden if x.startswith("gradient/")}


def test_padding_on_either_side_changes_nothing(tiny):
    apply = jax.jit(tiny.model.apply)
    for row, shift in ((0, 0), (1, 3), (1, 1)):
        real = tiny.real[row]
        tokens = jnp.zeros(9, jnp.int32)
        tokens = tokens.at[shift : shift + real.sum()].set(
            tiny.batch["tokens"][row, real]
        )
        place = jnp.arange(9)
        mask = (place >= shift) & (place < shift + real.sum())
        moved = {
            name: x.at[row].set(y)
            for (name, x), y in zip(tiny.batch.items(), (tokens, mask), strict=True)
        }
        outputs = apply(tiny.params, moved, None)
        for found, expected in (
            (tiny.outputs.logits, outputs.logits),
            *zip(tiny.outputs.hidden, outputs.hidden, strict=True),
        ):
            np.testing.assert_allclose(
                found[row, real], expected[row, np.asarray(mask)], atol=1e-5
            )
        for probs in outputs.attention:
            assert not np.any(probs[row][:, np.asarray(mask)][..., ~np.asarray(mask)])


def test_a_token_does_not_see_those_after_it(tiny):
    tokens = jnp.asarray(tiny.batch["tokens"][1:2, :6])
    batch = {"tokens": tokens, "token_mask": jnp.ones((1, 6), bool)}
    changed = batch | {"tokens": tokens.at[0, 4].set(tokens[0, 4] % 23 + 1)}
    apply = jax.jit(tiny.model.apply)
    before, after = (apply(tiny.params, x, None).logits[0] for x in (batch, changed))
    np.testing.assert_array_equal(before[:4], after[:4])
    assert np.all(np.abs(before[4:] - after[4:]).max(axis=-1) > 0.01)


def test_rows_of_padding_alone_are_finite(tiny):
    batch = tiny.batch | {"token_mask": jnp.zeros((3, 9), bool)}

    def total(params):
        outputs = tiny.model.apply(params, batch, None)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(outputs))

    value, gradient = jax.jit(jax.value_and_grad(total))(tiny.params)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_tokens_that_there_are_have_logits_and_padding_has_none(tiny):
    fewer = jax.jit(tiny.network.build(20).apply)(tiny.params, tiny.batch, None)
    assert fewer.logits.shape[-1] == 20
    np.testing.assert_allclose(
        fewer.logits, tiny.outputs.logits[..., :20], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(UserError, match=r"logits over 25 tokens .* embeddings for 24"):
        tiny.network.build(25)


def test_bfloat16_is_close(tiny):
    model = tiny.network.build(compute_dtype="bfloat16")
    rounded = jax.jit(model.apply)(tiny.params, tiny.batch, None)
    assert rounded.logits.dtype == rounded.attention[0].dtype == jnp.float32
    assert rounded.hidden[-1].dtype == jnp.bfloat16
    real = tiny.real
    difference = rounded.logits[real] - tiny.outputs.logits[real]
    # The same weights and half the digits.
    assert float(jnp.std(difference)) < 0.03 * float(jnp.std(tiny.outputs.logits[real]))


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
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        again(tiny.params),
        kept(tiny.params),
    )
    assert "remat" in str(jax.make_jaxpr(of(other))(tiny.params))


def test_sharding_the_batch_changes_nothing(tiny):
    if jax.device_count() < 4:
        pytest.skip("one device")
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    batch = {
        "tokens": jax.random.randint(jax.random.key(0), (8, 5), 0, 24),
        "token_mask": jnp.ones((8, 5), bool),
    }
    sharded = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    apply = jax.jit(tiny.model.apply)
    np.testing.assert_allclose(
        apply(tiny.params, batch, None).logits,
        apply(tiny.params, sharded, None).logits,
        atol=1e-5,
    )


def test_too_long_a_text_is_refused(tiny):
    batch = {
        "tokens": jnp.zeros((1, 33), jnp.int32),
        "token_mask": jnp.ones((1, 33), bool),
    }
    with pytest.raises(UserError, match=r"33 tokens .* at most 32"):
        tiny.model.apply(tiny.params, batch, None)
    with pytest.raises(UserError, match="a batch has no tokens"):
        tiny.model.apply(tiny.params, {}, None)


# --- the cache ---


@pytest.mark.slow
def test_cached_logits_equal_uncached(tiny):
    """Whatever the prompt's padding, read token by token."""
    decoder = tiny.model.decoder
    given = {name: x[:, :6] for name, x in tiny.batch.items()}
    logits, cache = jax.jit(decoder.start, static_argnums=2)(tiny.params, given, 4)
    step, apply = jax.jit(decoder.step), jax.jit(tiny.model.apply)
    written = jnp.array([[5, 7, 11, 2], [1, 23, 4, 9], [8, 8, 3, 20]], jnp.int32)
    for i in range(5):
        for row, length in enumerate(tiny.real[:, :6].sum(axis=1)):
            prompt = given["tokens"][row][tiny.real[row, :6]]
            text = jnp.concatenate([prompt, written[row, :i]])
            tokens = jnp.zeros((1, 10), jnp.int32).at[0, : len(text)].set(text)
            batch = {"tokens": tokens, "token_mask": jnp.arange(10)[None] < len(text)}
            expected = apply(tiny.params, batch, None).logits[0, length + i - 1]
            np.testing.assert_allclose(logits[row], expected, rtol=1e-5, atol=1e-5)
        if i < 4:
            logits, cache = step(tiny.params, cache, written[:, i])


def test_a_cache_of_other_texts(tiny):
    decoder = tiny.model.decoder
    start = jax.jit(decoder.start, static_argnums=2)
    rows = jnp.array([2, 0, 0])
    _, cache = start(tiny.params, tiny.batch, 1)
    picked = jax.tree.map(lambda x: x[rows], cache)
    of_rows = {name: x[rows] for name, x in tiny.batch.items()}
    _, expected = start(tiny.params, of_rows, 1)
    tokens, step = jnp.array([4, 9, 7]), jax.jit(decoder.step)
    np.testing.assert_allclose(
        step(tiny.params, picked, tokens)[0],
        step(tiny.params, expected, tokens)[0],
        atol=1e-5,
    )


@pytest.mark.slow
def test_no_room_to_write(tiny):
    with pytest.raises(UserError, match="9 tokens per example and is to write 24 more"):
        tiny.model.decoder.start(tiny.params, tiny.batch, 24)
