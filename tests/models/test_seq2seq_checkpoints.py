"""Every kind of checkpoint of an encoder-decoder, and what cannot be read."""

import dataclasses
import json
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from models.tiny_decoders import GOLDEN
from models.tiny_seq2seq import NAMES

from kd.errors import UserError
from kd.models import saved
from kd.models.bart import Bart
from kd.models.special_tokens import SpecialTokens, read_special_tokens
from kd.models.t5 import T5

every_network = pytest.mark.parametrize("name", NAMES)
PLAIN = T5(
    vocab_size=24,
    num_layers=2,
    num_decoder_layers=2,
    width=12,
    num_heads=3,
    head_width=5,
    mlp_width=14,
    num_buckets=8,
    max_distance=6,
)
NETWORKS = {
    "t5": PLAIN,
    "t5_v1_1": dataclasses.replace(
        PLAIN, num_decoder_layers=1, gated=True, tied=False, scaled=False
    ),
    "bart": Bart(
        vocab_size=24,
        num_layers=2,
        num_decoder_layers=2,
        width=12,
        num_heads=3,
        mlp_width=14,
        max_length=32,
        scaled=True,
    ),
}
SHARED = {"t5": "shared", "t5_v1_1": "shared", "bart": "model.shared"}


def load(directory):
    network = cast(Any, saved.read_config(directory).network)
    template = jax.eval_shape(network.build().init, jax.random.key(0), {})
    return network, saved.load(directory, network, template)


def tensors_of(directory):
    return safetensors.numpy.load_file(directory / "model.safetensors")


def put(tensors, directory):
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")


def rewrite(directory, name, **config):
    """A copy of a checkpoint; returns its tensors."""
    tensors = tensors_of(GOLDEN / f"tiny_{name}")
    put(tensors, directory)
    values = json.loads((GOLDEN / f"tiny_{name}" / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(values | config))
    return tensors


def assert_equal(params, expected):
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@every_network
def test_configs_are_read(name):
    assert saved.read_config(GOLDEN / f"tiny_{name}") == (NETWORKS[name], ())


@every_network
def test_round_trip_is_exact(name, tmp_path):
    network, loaded = load(GOLDEN / f"tiny_{name}")
    saved.save(tmp_path / "new", network, loaded.params, labels=())
    again, loaded_again = load(tmp_path / "new")
    assert again == network
    assert_equal(loaded_again.params, loaded.params)
    found, expected = tensors_of(tmp_path / "new"), tensors_of(GOLDEN / f"tiny_{name}")
    if name == "bart" and "final_logits_bias" not in expected:
        assert not np.any(found.pop("final_logits_bias"))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert saved.model_type(network) == name.removesuffix("_v1_1")


@pytest.mark.slow
@pytest.mark.parametrize(("tied", "scaled"), [(True, False), (False, True)])
def test_heads_that_are_not_published_come_back(tied, scaled, tmp_path):
    network = dataclasses.replace(PLAIN, tied=tied, scaled=scaled)
    params = jax.jit(network.build().init)(jax.random.key(0), {})
    saved.save(tmp_path, network, params, labels=())
    again, loaded = load(tmp_path)
    assert again == network
    assert_equal(loaded.params, params)


def test_an_untied_head_is_seen_in_what_older_and_newer_versions_write(tmp_path):
    """transformers 5 says that all heads are tied, older versions do not say more."""
    untied = NETWORKS["t5_v1_1"]
    newer = {"tie_word_embeddings": True, "scale_decoder_outputs": False}
    older = {"tie_word_embeddings": False, "scale_decoder_outputs": None}
    for config in (newer, older):
        rewrite(tmp_path, "t5_v1_1", **config)
        network, loaded = load(tmp_path)
        assert network == untied
        assert_equal(loaded.params, load(GOLDEN / "tiny_t5_v1_1")[1].params)
    rewrite(tmp_path, "t5", tie_word_embeddings=None, scale_decoder_outputs=None)
    assert load(tmp_path)[0] == PLAIN


@pytest.mark.slow
@every_network
def test_tables_under_their_other_names(name, tmp_path):
    tensors = rewrite(tmp_path, name)
    expected = load(GOLDEN / f"tiny_{name}")[1].params
    shared = f"{SHARED[name]}.weight"
    prefix = "model." if name == "bart" else ""
    copies = [f"{prefix}{part}.embed_tokens.weight" for part in ("encoder", "decoder")]
    if name != "t5_v1_1":
        copies.append("lm_head.weight")
    put(tensors | {copy: tensors[shared].copy() for copy in copies}, tmp_path)
    assert_equal(load(tmp_path)[1].params, expected)
    table = tensors.pop(shared)
    for copy in copies:
        put(tensors | {copy: table}, tmp_path)
        assert_equal(load(tmp_path)[1].params, expected)
    for copy in copies:
        put(tensors | {shared: table, copy: table + 1}, tmp_path)
        with pytest.raises(UserError, match=f"{copy} is not {shared}, though its con"):
            load(tmp_path)


def test_a_body_without_its_head_has_no_prefix(tmp_path):
    tensors = rewrite(tmp_path, "bart")
    expected = load(GOLDEN / "tiny_bart")[1].params
    body = {name.removeprefix("model."): x for name, x in tensors.items()}
    body.pop("final_logits_bias", None)
    body["encoder.embed_tokens.weight"] = body.pop("shared.weight")
    put(body, tmp_path)
    found = load(tmp_path)[1].params
    assert not np.any(found.pop("head_bias"))
    assert_equal(found, {k: v for k, v in expected.items() if k != "head_bias"})


def test_a_bias_of_the_logits_is_read(tmp_path):
    tensors = rewrite(tmp_path, "bart")
    bias = np.arange(24, dtype=np.float32)[None]
    put(tensors | {"final_logits_bias": bias}, tmp_path)
    network, loaded = load(tmp_path)
    np.testing.assert_array_equal(loaded.params["head_bias"], bias)
    tokens, mask = jnp.ones((1, 2), jnp.int32), jnp.ones((1, 2), bool)
    batch = {
        "tokens": tokens, "token_mask": mask,
        "target_tokens": tokens, "target_mask": mask,
    }  # fmt: skip
    apply = jax.jit(network.build().apply)
    without = loaded.params | {"head_bias": jnp.zeros((1, 24))}
    added = (
        apply(loaded.params, batch, None).logits - apply(without, batch, None).logits
    )
    np.testing.assert_allclose(added, np.broadcast_to(bias, (1, 2, 24)), atol=1e-5)


@every_network
def test_bfloat16_weights_become_float32(name, tmp_path):
    tensors = rewrite(tmp_path, name)
    put({key: x.astype(jnp.bfloat16) for key, x in tensors.items()}, tmp_path)
    params = load(tmp_path)[1].params
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}


def test_all_that_does_not_fit_is_listed(tmp_path):
    tensors = rewrite(tmp_path, "t5")
    lacks = "encoder.block.1.layer.1.DenseReluDense.wi.weight"
    del tensors[lacks]
    tensors["decoder.norm.weight"] = tensors.pop("decoder.final_layer_norm.weight")
    key = "decoder.block.0.layer.1.EncDecAttention.k.weight"
    tensors[key] = tensors[key][:4]
    put(tensors, tmp_path)
    with pytest.raises(UserError) as refused:
        load(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}: its weights do not fit the network: it lacks "
        f"decoder.final_layer_norm.weight, {lacks}; nothing takes decoder.norm.weight; "
        f"{key} is [4, 12], expected [15, 12]"
    )


def test_a_table_that_t5_does_not_read(tmp_path):
    tensors = rewrite(tmp_path, "t5")
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    put(tensors | {name: np.ones((8, 3), np.float32)}, tmp_path)
    assert_equal(load(tmp_path)[1].params, load(GOLDEN / "tiny_t5")[1].params)


@pytest.mark.parametrize("name", ["t5", "t5_v1_1"])
def test_rows_beyond_the_vocabulary_are_padding(name, tmp_path):
    rewrite(tmp_path, name, vocab_size=21)
    network, (params, _, unread) = load(tmp_path)
    assert network.vocab_size == 21
    rows = ("shared.weight[21:]", "lm_head.weight[21:]")
    assert unread == (rows if name == "t5_v1_1" else rows[:1])
    whole = load(GOLDEN / f"tiny_{name}")[1].params
    np.testing.assert_array_equal(params["embeddings"], whole["embeddings"][:21])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("t5", {"feed_forward_proj": "gelu"}, "feed_forward_proj is 'gelu'; only relu"),
        ("t5", {"feed_forward_proj": 1}, "feed_forward_proj is 1; only relu and gated"),
        ("t5", {"dense_act_fn": "silu"}, "dense_act_fn is 'silu'; only 'relu' is supp"),
        ("t5", {"is_gated_act": True}, "is_gated_act is True; only False is supported"),
        ("t5", {"is_decoder": True}, "is_decoder is True; only False is supported"),
        ("t5", {"d_kv": None}, "has no d_kv"),
        ("t5", {"d_model": 0}, "d_model is 0; expected a whole number from 1"),
        ("t5", {"num_decoder_layers": 9999}, "from 1 to 1024"),
        ("t5", {"tie_word_embeddings": 1}, "embeddings is 1; expected true or false"),
        ("t5", {"decoder_start_token_id": -1}, "token_id is -1; expected the id of a"),
        (
            "t5",
            {"decoder_start_token_id": 99},
            r"start_token is 99, must be in \[0",
        ),
        ("t5", {"relative_attention_num_buckets": 2}, "num_buckets is 2, must be at l"),
        ("t5", {"quantization_config": {"bits": 4}}, "quantization_config is {"),
        ("bart", {"activation_function": "relu"}, "'relu'; only 'gelu' is supported"),
        ("bart", {"decoder_attention_heads": 2}, "encoder_attention_heads is 3 and de"),
        ("bart", {"decoder_ffn_dim": 15}, "is 14 and decoder_ffn_dim 15; only equal"),
        ("bart", {"encoder_layerdrop": 0.1}, r"encoder_layerdrop is 0\.1; only 0\.0"),
        ("bart", {"normalize_before": True}, "normalize_before is True; only False"),
        ("bart", {"tie_word_embeddings": False}, "embeddings is False; only True"),
        ("bart", {"d_model": 14}, "width 14 is not divisible by num_heads 3"),
        ("bart", {"auto_map": {"AutoModel": "m.M"}}, "auto_map is {.*; only None"),
        ("bart", {"encoder_layers": None}, "has no encoder_layers"),
    ],
)
def test_what_is_not_computed_is_refused(name, changes, message, tmp_path):
    rewrite(tmp_path, name, **changes)
    with pytest.raises(UserError, match=message) as refused:
        saved.read_config(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'config.json'}")


def test_a_decoder_has_as_many_layers_where_nothing_is_said(tmp_path):
    rewrite(tmp_path, "t5", num_decoder_layers=None)
    assert cast(T5, saved.read_config(tmp_path).network).num_decoder_layers == 2


@every_network
def test_special_tokens_are_stored(name, tmp_path):
    network, loaded = load(GOLDEN / f"tiny_{name}")
    tokens = SpecialTokens(end=(1, 5), padding=0)
    saved.save(tmp_path, network, loaded.params, labels=(), special_tokens=tokens)
    assert read_special_tokens(tmp_path) == tokens
