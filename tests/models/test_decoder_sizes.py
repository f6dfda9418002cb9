"""Presets of decoders and sizes that there cannot be."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.models.gpt2 import GPT2
from kd.models.llama import Llama
from kd.models.rotary import LinearScaling, Llama3Scaling


@pytest.mark.parametrize(
    ("network", "published"),
    [
        (GPT2.small(), 124_439_808),
        (GPT2.medium(), 354_823_168),
        (GPT2.large(), 774_030_080),
        (GPT2.xl(), 1_557_611_200),
        (GPT2.six_layer(), 81_912_576),
        (Llama.smollm2_135m(), 134_515_008),
        (Llama.smollm2_360m(), 361_821_120),
        (Llama.llama3_2_1b(), 1_235_814_400),
        (Llama.qwen2_5_0_5b(), 494_032_768),
        (Llama.mistral_7b(), 7_248_023_552),
        (Llama.mistral_7b_v0_1(), 7_241_732_096),
    ],
)
def test_presets_have_the_published_sizes(network, published, key):
    params = jax.eval_shape(network.build().init, key, {})
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == published
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}


def test_presets_take_changes():
    llama = Llama.llama3_2_1b(num_layers=2, vocab_size=100)
    assert (llama.num_layers, llama.vocab_size, llama.width) == (2, 100, 2048)
    assert Llama.smollm2_135m(num_layers=1).num_layers == 1
    assert Llama.mistral_7b_v0_1(sliding_window=8).sliding_window == 8
    assert GPT2.xl(dropout=0.0).dropout == 0
    assert GPT2.six_layer(num_layers=3).num_layers == 3


def test_fresh_weights_have_the_given_spread(key):
    gpt2 = GPT2(vocab_size=500, width=96, num_layers=2, initializer_stddev=0.05)
    params = jax.jit(gpt2.build().init)(key, {})
    layer = params["layer_1"]
    for array, stddev in (
        (params["embeddings"], 0.05),
        (layer["query_key_value"]["kernel"], 0.05),
        (layer["attention_out"]["kernel"], 0.025),
        (layer["mlp_out"]["kernel"], 0.025),
    ):
        assert float(array.std()) == pytest.approx(stddev, rel=0.03)
        assert float(array.mean()) == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("place", ["dropout", "embedding_dropout", "attention_dropout"])
def test_dropout_follows_the_key(key, place):
    still = GPT2(
        vocab_size=20, num_layers=1, width=16, num_heads=2, mlp_width=16, max_length=8,
        initializer_stddev=0.3, dropout=0.0, embedding_dropout=0.0,
        attention_dropout=0.0,
    )  # fmt: skip
    changes: Any = {place: 0.2}
    gpt2 = dataclasses.replace(still, **changes)
    check_dropout(gpt2, key)


def test_dropout_of_attention_in_a_llama(key):
    check_dropout(
        Llama(
            vocab_size=20, num_layers=1, width=16, num_heads=2, num_key_value_heads=1,
            head_width=8, mlp_width=16, initializer_stddev=0.3, attention_dropout=0.2,
            remat=True,
        ),
        key,
    )  # fmt: skip


def check_dropout(network, key):
    model = network.build()
    params = jax.jit(model.init)(key, {})
    batch = {
        "tokens": jnp.arange(1, 7)[None],
        "token_mask": jnp.ones((1, 6), bool),
    }
    apply = jax.jit(model.apply)
    first, again, other = (
        apply(params, batch, jax.random.key(seed)).logits for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first, apply(params, batch, None).logits)


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        (GPT2, {"width": 130}, "width 130 is not divisible by num_heads 12"),
        (GPT2, {"num_layers": 0}, "num_layers is 0"),
        (GPT2, {"embedding_dropout": 1.0}, r"embedding_dropout is 1\.0"),
        (GPT2, {"norm_epsilon": 0.0}, r"norm_epsilon is 0\.0"),
        (Llama, {"num_heads": 8}, "num_heads 8 is not divisible by num_key_value_h"),
        (Llama, {"head_width": 7}, "head_width is 7, must be even"),
        (Llama, {"vocab_size": -1}, "vocab_size is -1"),
        (Llama, {"sliding_window": 0}, "sliding_window is 0"),
        (Llama, {"attention_dropout": -0.1}, r"attention_dropout is -0\.1"),
        (Llama, {"rotary_base": 0.0}, r"rotary_base is 0\.0"),
    ],
)
def test_impossible_sizes_are_refused(network, changes, message):
    with pytest.raises(ValueError, match=message):
        network(**changes)


def test_rotary_frequencies_for_longer_texts():
    frequencies = np.array([1.0, 0.5, 0.01, 0.0001])
    np.testing.assert_allclose(LinearScaling(factor=4.0)(frequencies), frequencies / 4)
    scaling = Llama3Scaling(factor=4.0, low=1.0, high=4.0, original=1000)
    # 159, 80, 1.59 and 0.016 turns: kept, kept, between, divided.
    share = (1000 * 0.01 / (2 * np.pi) - 1) / 3
    between = 0.01 * (share + (1 - share) / 4)
    np.testing.assert_allclose(
        scaling(frequencies), [1.0, 0.5, between, 0.000025], rtol=1e-12
    )
