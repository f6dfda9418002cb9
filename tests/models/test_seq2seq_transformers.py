"""Encoder-decoders that transformers made, and those that it reads, both ways."""

import dataclasses
import itertools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.models import distances, saved
from kd.models.bart import Bart
from kd.models.special_tokens import SpecialTokens
from kd.models.t5 import T5

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from golden import make_tiny_seq2seq as tiny  # noqa: E402  It imports torch.

BATCH = tiny.inputs()
TARGET = BATCH["target_mask"].numpy()
PLAIN = T5(
    vocab_size=24,
    num_layers=3,
    num_decoder_layers=2,
    width=16,
    num_heads=2,
    head_width=6,
    mlp_width=20,
    num_buckets=12,
    max_distance=9,
)
SMALL = Bart(
    vocab_size=24,
    num_layers=3,
    num_decoder_layers=1,
    width=16,
    num_heads=4,
    mlp_width=20,
    max_length=32,
    start_token=5,
)
NETWORKS = {
    "t5": PLAIN,
    "flan": dataclasses.replace(PLAIN, gated=True, tied=False, scaled=False),
    "tied": dataclasses.replace(PLAIN, gated=True, scaled=False, start_token=4),
    "bart": SMALL,
    "scaled": dataclasses.replace(SMALL, scaled=True, num_decoder_layers=3),
}


def logits_there(network):
    targets = BATCH["target_tokens"]
    start = network.config.decoder_start_token_id
    with torch.no_grad():
        outputs = network(
            input_ids=BATCH["tokens"],
            attention_mask=BATCH["token_mask"].long(),
            decoder_input_ids=torch.nn.functional.pad(
                targets[:, :-1], (1, 0), value=start
            ),
        )
    return outputs.logits.numpy()


def logits_here(network, params):
    batch = {
        name: jnp.asarray(x.numpy().astype(bool if "mask" in name else np.int32))
        for name, x in BATCH.items()
    }
    return np.asarray(jax.jit(network.build().apply)(params, batch, None).logits)


@pytest.mark.parametrize("name", NETWORKS)
def test_transformers_gives_the_same_logits(name, tmp_path):
    network = NETWORKS[name]
    shapes = jax.eval_shape(network.build().init, jax.random.key(0), {})
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: random.normal(0, 0.3, x.shape).astype(np.float32), shapes
    )
    saved.save(tmp_path, network, params, labels=())
    theirs, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values()), info
    np.testing.assert_allclose(
        logits_here(network, params)[TARGET],
        logits_there(theirs)[TARGET],
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("name", tiny.CONFIGS)
@pytest.mark.parametrize("shard", ["1GB", "9KB"])
def test_what_transformers_saves_is_read(name, shard, tmp_path):
    theirs = tiny.model(name)
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors").exists() == (shard == "1GB")
    network = cast(Any, saved.read_config(tmp_path).network)
    template = jax.eval_shape(network.build().init, jax.random.key(0), {})
    params, fresh, unread = saved.load(tmp_path, network, template)
    assert (fresh, unread) == ((), ())
    np.testing.assert_allclose(
        logits_here(network, params)[TARGET],
        logits_there(theirs)[TARGET],
        rtol=1e-4,
        atol=1e-4,
    )


def test_buckets_are_those_of_transformers():
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-300, 301)
    for both, (num_buckets, max_distance) in itertools.product(
        (True, False), ((32, 128), (32, 100), (8, 6), (12, 9), (64, 256), (7, 20))
    ):
        theirs = T5Attention._relative_position_bucket(
            torch.tensor(distance), both, num_buckets, max_distance
        )
        ours = distances.bucket(
            jnp.asarray(distance),
            bidirectional=both,
            num_buckets=num_buckets,
            max_distance=max_distance,
        )
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_special_tokens_are_those_of_transformers(name, tmp_path):
    network = NETWORKS[name]
    params = jax.jit(network.build().init)(jax.random.key(0), {})
    tokens = SpecialTokens(end=(2, 5), padding=0)
    saved.save(tmp_path, network, params, labels=(), special_tokens=tokens)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (config.eos_token_id, config.pad_token_id) == ([2, 5], 0)
    assert config.decoder_start_token_id == network.start_token


def test_what_the_records_say_is_what_transformers_makes():
    """Of the published sizes, by the shapes of all parameters."""
    sizes = {"d_kv": 64, "vocab_size": 32128, "num_layers": 8, "d_model": 512}
    flan = transformers.T5Config(
        **sizes, d_ff=1024, num_heads=6, feed_forward_proj="gated-gelu"
    )
    for config, network in (
        (transformers.T5Config(), T5.small()),
        (flan, T5.flan_small(tied=True)),
        (transformers.BartConfig(), Bart.large()),
    ):
        with torch.device("meta"):
            made = transformers.AutoModelForSeq2SeqLM.from_config(config)
        theirs = sum(p.numel() for p in made.parameters())
        shapes = jax.eval_shape(network.build().init, jax.random.key(0), {})
        shapes.pop("head_bias", None)
        assert theirs == sum(leaf.size for leaf in jax.tree.leaves(shapes))
