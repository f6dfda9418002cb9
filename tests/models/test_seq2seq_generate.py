"""What tiny encoder-decoders write, against transformers and against definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from models.tiny_decoders import END
from models.tiny_seq2seq import NAMES, Tiny

from kd.models import generate
from kd.models.beams import Beams
from kd.models.generate import Greedy, Sample


@functools.cache
def tiny(name):
    return Tiny(name)


WAYS = {
    "greedy": Greedy(),
    "beams_3_penalty_0": Beams(num_beams=3, length_penalty=0.0),
    "beams_3_penalty_1": Beams(num_beams=3),
    "beams_4_penalty_2": Beams(num_beams=4, length_penalty=2.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_what_transformers_writes(name, way):
    """Token for token."""
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
    pairs = generate.pair(network.batch, written)
    np.testing.assert_array_equal(pairs["target_tokens"], written.tokens)
    scored = generate.token_log_probs(network.model, network.params, pairs)
    np.testing.assert_allclose(scored, written.log_probs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        Greedy(),
        Sample(temperature=1.5, top_k=9, top_p=0.9),
        Beams(num_beams=3),
        Beams(num_beams=3, sample=Sample()),
    ],
    ids=["greedy", "sample", "beams", "drawn beams"],
)
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_row_does_not_depend_on_its_batch(name, how):
    network = tiny(name)
    keys = jax.random.split(jax.random.key(4), 3)
    together = network.write(how, key=keys)
    for row, around in ((1, (2, 0)), (2, (0, 1))):
        real = network.real[row]
        alone = {
            name: jnp.pad(x[row][real][None], ((0, 0), around))
            for name, x in network.source.items()
        }
        written = network.write(how, batch=alone, key=keys[row : row + 1])
        np.testing.assert_array_equal(written.tokens[0], together.tokens[row])


@pytest.mark.slow
def test_targets_of_a_batch_are_not_read():
    network = tiny("t5")
    np.testing.assert_array_equal(
        network.write(Greedy(), batch=network.batch).tokens,
        network.write(Greedy()).tokens,
    )


def logits_of(network, row, num_tokens):
    """Of every text of so many tokens about one source, [v, ..., num_tokens, v]."""
    source = {name: x[row : row + 1] for name, x in network.source.items()}
    texts = np.array(list(np.ndindex(*(24,) * num_tokens)), np.int32)
    batch = {name: jnp.repeat(x, len(texts), axis=0) for name, x in source.items()}
    batch |= {
        "target_tokens": jnp.asarray(texts),
        "target_mask": jnp.ones(texts.shape, bool),
    }
    apply = jax.jit(network.model.apply)
    logits = np.asarray(apply(network.params, batch, None).logits, np.float64)
    return logits.reshape(*(24,) * num_tokens, num_tokens, 24)


@pytest.mark.slow
def test_two_tokens_have_the_distribution_of_the_network():
    network, num_draws = tiny("bart"), 20_000
    rows = {
        name: jnp.repeat(x[1:2], num_draws, axis=0)
        for name, x in network.source.items()
    }
    how = Sample(temperature=1.5)
    written = network.write(how, num_tokens=2, batch=rows, end=())
    counts = np.zeros((24, 24))
    np.add.at(counts, tuple(np.asarray(written.tokens).T), 1)
    logits = logits_of(network, 1, 2)[:, 0] / how.temperature
    first, second = scipy.special.softmax(logits, axis=-1).transpose(1, 0, 2)
    expected = num_draws * first[0][:, None] * second
    large = expected >= 5
    found = np.append(counts[large], counts[~large].sum())
    wanted = np.append(expected[large], expected[~large].sum())
    assert large.sum() > 8
    assert scipy.stats.chisquare(found, wanted).pvalue > 1e-3


# --- drawn beams ---


@pytest.mark.slow
def test_drawn_candidates_have_their_distribution():
    """Of one token: two beams hold two of four draws without replacement."""
    network, num_draws = tiny("t5"), 4000
    rows = {
        name: jnp.repeat(x[1:2], num_draws, axis=0)
        for name, x in network.source.items()
    }
    how = Beams(num_beams=1, length_penalty=0.0, sample=Sample(top_k=4))
    written = network.write(how, num_tokens=1, batch=rows, end=())
    logits = logits_of(network, 1, 1)[0, 0]
    kept = np.argsort(-logits)[:4]
    probs = scipy.special.softmax(logits[kept])
    # Two candidates are drawn, and the likelier one is written.
    expected = np.zeros(4)
    for i in range(4):
        for j in range(4):
            if i != j:
                expected[min(i, j)] += probs[i] * probs[j] / (1 - probs[i])
    counts = np.array([(np.asarray(written.tokens) == token).sum() for token in kept])
    assert counts.sum() == num_draws
    assert counts[3] == 0 and expected[3] == 0
    test = scipy.stats.chisquare(counts[:3], num_draws * expected[:3])
    assert test.pvalue > 1e-3


@pytest.mark.slow
def test_drawn_beams_of_all_there_is_find_the_best():
    """Where every continuation is drawn, there is nothing left to chance."""
    network = tiny("t5")
    every = Beams(num_beams=12, sample=Sample())
    best = Beams(num_beams=12)
    for key in (0, 1):
        found, expected = (
            network.write(how, num_tokens=1, end=(), key=jax.random.key(key))
            for how in (every, best)
        )
        np.testing.assert_array_equal(found.tokens, expected.tokens)


@pytest.mark.slow
def test_drawn_beams_differ_and_are_repeated():
    network = tiny("bart")
    rows = {name: jnp.repeat(x[1:2], 6, axis=0) for name, x in network.source.items()}
    how = Beams(num_beams=2, sample=Sample(temperature=2.0))
    first, again, other = (
        network.write(how, batch=rows, key=jax.random.key(key)) for key in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert len({tuple(map(int, row)) for row in first.tokens}) > 2
    assert np.any(first.tokens != other.tokens)
    check(network, network.write(how))


@pytest.mark.slow
def test_bfloat16_writes():
    network = tiny("t5")
    model = network.network.build(compute_dtype="bfloat16")
    written = generate.generate(
        model, network.params, network.source, jax.random.key(0), num_tokens=4
    )
    exact = network.write(Greedy(), num_tokens=4, end=())
    np.testing.assert_allclose(written.log_probs[:, 0], exact.log_probs[:, 0], atol=0.1)
