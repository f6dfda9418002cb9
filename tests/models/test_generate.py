"""Texts that tiny networks write, against transformers and against definitions."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from models.tiny_decoders import END, Tiny

from kd.errors import UserError
from kd.models import generate
from kd.models.beams import Beams
from kd.models.generate import Greedy, Sample
from kd.models.mlp import MLP


@functools.cache
def tiny(name):
    return Tiny(name)


@pytest.fixture(params=["gpt2", "mistral"])
def either(request):
    """Of each kind of network."""
    return tiny(request.param)


@pytest.fixture
def llama():
    return tiny("llama")


WAYS = {
    "greedy": Greedy(),
    "beams_3_penalty_0": Beams(num_beams=3, length_penalty=0.0),
    "beams_3_penalty_1": Beams(num_beams=3),
    "beams_4_penalty_2": Beams(num_beams=4, length_penalty=2.0),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "way"),
    [
        *((name, way) for name in ("gpt2", "llama", "mistral") for way in WAYS),
        *((name, "greedy") for name in ("qwen2", "qwen3")),
    ],
)
def test_what_transformers_writes(name, way):
    """Token for token, with prompts padded on either side."""
    network = tiny(name)
    written = network.write(WAYS[way])
    np.testing.assert_array_equal(written.tokens, network.golden[f"written/{way}"])
    check(network, written)


def check(network, written):
    """The mask ends where a text does, and what is said of tokens is so."""
    is_end = np.isin(written.tokens, END) & np.asarray(written.token_mask)
    before = np.cumsum(is_end, axis=1) - is_end
    np.testing.assert_array_equal(written.token_mask, before == 0)
    assert not np.any(np.where(written.token_mask, 0, written.tokens))
    assert not np.any(np.where(written.token_mask, 0, written.log_probs))
    joined = generate.join(network.batch, written)
    scored = generate.token_log_probs(network.model, network.params, joined)
    np.testing.assert_allclose(
        scored[joined["written"]],
        written.log_probs[written.token_mask],
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.slow
def test_joined_texts_are_prompts_and_what_follows(llama):
    written = llama.write(Greedy())
    joined = generate.join(llama.batch, written)
    for row in range(3):
        prompt = llama.batch["tokens"][row][llama.batch["token_mask"][row]]
        text = [*prompt, *written.tokens[row][written.token_mask[row]]]
        found = joined["tokens"][row][joined["token_mask"][row]]
        np.testing.assert_array_equal(found, text)
        np.testing.assert_array_equal(
            joined["token_mask"][row], np.arange(17) < len(text)
        )
        where = (np.arange(17) >= len(prompt)) & (np.arange(17) < len(text))
        np.testing.assert_array_equal(joined["written"][row], where)


@pytest.mark.slow
def test_log_probs_of_tokens_are_those_of_the_logits(llama):
    found = generate.token_log_probs(llama.model, llama.params, llama.batch)
    logits = llama.model.apply(llama.params, llama.batch, None).logits
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    tokens, mask = llama.batch["tokens"], llama.batch["token_mask"]
    for row, column in itertools.product(range(3), range(9)):
        both = column > 0 and mask[row, column - 1] and mask[row, column]
        expected = log_probs[row, column - 1, tokens[row, column]] if both else 0.0
        assert float(found[row, column]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [Greedy(), Sample(temperature=1.5, top_k=9, top_p=0.9), Beams(num_beams=3)],
    ids=lambda how: type(how).__name__,
)
def test_a_row_does_not_depend_on_its_batch(either, how):
    keys = jax.random.split(jax.random.key(4), 3)
    together = either.write(how, key=keys)
    for row, around in ((0, (0, 0)), (1, (1, 0)), (1, (0, 1))):
        real = either.real[row]
        padding = ((0, 0), around)
        alone = {
            name: jnp.pad(x[row][real][None], padding)
            for name, x in either.batch.items()
        }
        written = either.write(how, batch=alone, key=keys[row : row + 1])
        np.testing.assert_array_equal(written.tokens[0], together.tokens[row])


@pytest.mark.slow
def test_one_key_gives_every_row_its_own(llama):
    how, key = Sample(), jax.random.key(9)
    rows = {name: jnp.repeat(x[1:2], 4, axis=0) for name, x in llama.batch.items()}
    together = llama.write(how, batch=rows, key=key).tokens
    assert len({tuple(map(int, row)) for row in together}) > 1
    np.testing.assert_array_equal(
        together, llama.write(how, batch=rows, key=key).tokens
    )
    fewer = {name: x[:2] for name, x in rows.items()}
    np.testing.assert_array_equal(
        together[:2], llama.write(how, batch=fewer, key=key).tokens
    )
    keys = jnp.stack([jax.random.fold_in(key, i) for i in range(4)])
    np.testing.assert_array_equal(
        together, llama.write(how, batch=rows, key=keys).tokens
    )


@pytest.mark.slow
def test_more_room_begins_with_the_same_text(llama):
    for how in (Greedy(), Sample()):
        short, long = (llama.write(how, num_tokens=n) for n in (4, 12))
        np.testing.assert_array_equal(short.tokens, long.tokens[:, :4])
    assert llama.write(Greedy(), num_tokens=1).tokens.shape == (3, 1)


# --- the distribution ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        Sample(),
        Sample(temperature=2.0, top_k=5),
        Sample(top_p=0.7),
        Sample(temperature=1.5, top_k=12, top_p=0.8),
    ],
    ids=str,
)
def test_two_tokens_have_the_distribution_that_is_asked_for(llama, how):
    num_draws = 20_000
    prompt = llama.batch["tokens"][1:2, :6]
    rows = {
        "tokens": jnp.repeat(prompt, num_draws, axis=0),
        "token_mask": jnp.ones((num_draws, 6), bool),
    }
    written = llama.write(how, num_tokens=2, batch=rows, end=())
    counts = np.zeros((24, 24))
    np.add.at(counts, tuple(np.asarray(written.tokens).T), 1)

    texts = jnp.concatenate(
        [jnp.repeat(prompt, 24, axis=0), jnp.arange(24)[:, None]], axis=1
    )
    batch = {"tokens": texts, "token_mask": jnp.ones((24, 7), bool)}
    logits = np.asarray(llama.model.apply(llama.params, batch, None).logits, np.float64)
    first = drawn_from(logits[0, 5], how)
    joint = first[:, None] * np.stack([drawn_from(x[6], how) for x in logits])
    assert joint.sum() == pytest.approx(1)
    assert not counts[joint == 0].any()
    expected = num_draws * joint
    large = expected >= 5
    found = np.append(counts[large], counts[~large].sum())
    wanted = np.append(expected[large], expected[~large].sum())
    kept = wanted > 0
    assert kept.sum() > 8
    test = scipy.stats.chisquare(found[kept], wanted[kept])
    assert test.pvalue > 1e-3


def drawn_from(logits, how):
    """The definition, token by token from the likeliest on."""
    logits = logits / how.temperature
    kept = np.argsort(-logits, kind="stable")[: how.top_k]
    probs = np.exp(logits[kept] - logits[kept].max())
    probs /= probs.sum()
    fewest = next(
        i for i in range(len(kept)) if probs[: i + 1].sum() >= how.top_p - 1e-12
    )
    out = np.zeros_like(logits)
    out[kept[: fewest + 1]] = probs[: fewest + 1] / probs[: fewest + 1].sum()
    return out


@pytest.mark.slow
def test_log_probs_are_of_the_network_not_of_what_was_drawn_from(llama):
    check(llama, llama.write(Sample(temperature=0.5, top_k=3)))


def test_cutting_keeps_ties_and_at_least_one():
    logits = jnp.array([[2.0, 1.0, 1.0, 0.0]])
    cut = Sample(top_k=2).cut(logits)
    np.testing.assert_array_equal(jnp.isfinite(cut), [[True, True, True, False]])
    cut = Sample(top_p=1e-6).cut(logits)
    np.testing.assert_array_equal(jnp.isfinite(cut), [[True, False, False, False]])
    np.testing.assert_array_equal(Sample(top_k=9).cut(logits), logits)


# --- beams ---


def all_texts(llama, num_tokens):
    """Every text after the second prompt, with its log-probability and length."""
    prompt = [int(x) for x in llama.batch["tokens"][1, :6]]
    apply = jax.jit(llama.model.apply)
    texts = [((), 0.0)]
    ended = []
    for _ in range(num_tokens):
        rows = jnp.array([[*prompt, *text] for text, _ in texts], jnp.int32)
        batch = {"tokens": rows, "token_mask": jnp.ones(rows.shape, bool)}
        logits = apply(llama.params, batch, None).logits[:, -1]
        log_probs = np.asarray(jax.nn.log_softmax(logits), np.float64)
        grown = [
            ((*text, v), score + log_probs[i, v])
            for i, (text, score) in enumerate(texts)
            for v in range(24)
        ]
        ended += [(text, score) for text, score in grown if text[-1] in END]
        texts = [(text, score) for text, score in grown if text[-1] not in END]
    return ended + texts


@pytest.mark.slow
@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 2.0])
def test_many_beams_find_the_best_text(llama, length_penalty):
    best, _ = max(
        all_texts(llama, 2),
        key=lambda pair: pair[1] / len(pair[0]) ** length_penalty,
    )
    how = Beams(num_beams=22, length_penalty=length_penalty)
    row = {name: x[1:2] for name, x in llama.batch.items()}
    written = llama.write(how, num_tokens=2, batch=row)
    found = written.tokens[0][written.token_mask[0]]
    assert tuple(map(int, found)) == best


@pytest.mark.slow
def test_one_beam_is_greedy_when_nothing_ends(llama):
    one, greedy = (llama.write(how, end=()) for how in (Beams(num_beams=1), Greedy()))
    np.testing.assert_array_equal(one.tokens, greedy.tokens)
    np.testing.assert_allclose(one.log_probs, greedy.log_probs, atol=1e-5)


def test_more_beams_find_likelier_texts(llama):
    greedy = llama.write(Greedy(), end=()).log_probs.sum(axis=1)
    many = llama.write(Beams(num_beams=8), end=()).log_probs.sum(axis=1)
    assert np.all(many >= greedy - 1e-5)
    assert np.any(many > greedy + 0.1)


# --- elsewhere ---


@pytest.mark.slow
@pytest.mark.parametrize("how", [Greedy(), Sample(), Beams(num_beams=2)], ids=str)
def test_a_sharded_batch_writes_the_same(llama, how):
    if jax.device_count() < 4:
        pytest.skip("one device")
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    batch = {
        "tokens": jax.random.randint(jax.random.key(0), (8, 5), 1, 24),
        "token_mask": jnp.ones((8, 5), bool),
    }
    sharded = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    np.testing.assert_array_equal(
        llama.write(how, batch=batch).tokens, llama.write(how, batch=sharded).tokens
    )


@pytest.mark.slow
def test_bfloat16_writes(llama):
    model = llama.network.build(compute_dtype="bfloat16")
    written = generate.generate(
        model, llama.params, llama.batch, jax.random.key(0), num_tokens=4
    )
    exact = llama.write(Greedy(), num_tokens=4, end=())
    np.testing.assert_allclose(written.log_probs[:, 0], exact.log_probs[:, 0], atol=0.1)


@pytest.mark.parametrize(
    ("how", "settings", "message"),
    [
        (Sample, {"temperature": 0.0}, r"temperature is 0\.0, must be positive"),
        (Sample, {"top_k": 0}, "top_k is 0, must be at least 1"),
        (Sample, {"top_p": 0.0}, r"top_p is 0\.0, must be in \(0, 1\]"),
        (Sample, {"top_p": 1.5}, r"top_p is 1\.5, must be in"),
        (Beams, {"num_beams": 0}, "num_beams is 0, must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(how, settings, message):
    with pytest.raises(ValueError, match=message):
        how(**settings)


@pytest.mark.slow
def test_what_cannot_write_is_refused(llama):
    with pytest.raises(UserError, match="9 tokens per example and is to write 24 more"):
        llama.write(Greedy(), num_tokens=24)
    with pytest.raises(UserError, match=r"2 beams over 24 tokens .* and there are 48"):
        llama.write(Beams(num_beams=2), end=tuple(range(24)))
    with pytest.raises(UserError, match="it is no language model"):
        generate.generate(
            MLP().build(2), {}, llama.batch, jax.random.key(0), num_tokens=3
        )
