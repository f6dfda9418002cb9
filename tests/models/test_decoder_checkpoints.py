"""Every kind of checkpoint of a decoder, and one line for what cannot be read."""

import dataclasses
import functools
import json
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from models.tiny_decoders import GOLDEN, NAMES

from kd.errors import UserError
from kd.models import saved
from kd.models.gpt2 import GPT2
from kd.models.llama import Llama
from kd.models.rotary import LinearScaling, Llama3Scaling
from kd.models.special_tokens import SpecialTokens, read_special_tokens

every_network = pytest.mark.parametrize("name", NAMES)


def template(network):
    return jax.eval_shape(network.build().init, jax.random.key(0), {})


def load(directory):
    network = cast(Any, saved.read_config(directory).network)
    return network, saved.load(directory, network, template(network))


def tensors_of(directory):
    return safetensors.numpy.load_file(directory / "model.safetensors")


def rewrite(directory, name, change=lambda name, tensor: (name, tensor), **config):
    """A checkpoint whose tensors went through `change(name, tensor)`."""
    changed = [change(*pair) for pair in tensors_of(GOLDEN / f"tiny_{name}").items()]
    tensors = dict(pair for pair in changed if pair)
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    values = json.loads((GOLDEN / f"tiny_{name}" / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(values | config))


def assert_equal(params, expected):
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_configs_are_read():
    plain = Llama(
        vocab_size=24,
        num_layers=2,
        width=16,
        num_heads=4,
        num_key_value_heads=2,
        head_width=4,
        mlp_width=20,
        max_length=32,
        norm_epsilon=1e-6,
        rotary_base=10_000.0,
    )
    change = functools.partial(dataclasses.replace, plain)
    expected = {
        "gpt2": GPT2(
            vocab_size=24, num_layers=2, width=16, num_heads=4, mlp_width=20,
            max_length=32,
        ),
        "llama": change(
            tied=False, rotary_base=100.0,
            rotary_scaling=Llama3Scaling(factor=8.0, original=16),
        ),
        "mistral": change(head_width=6, sliding_window=3),
        "qwen2": change(
            attention_bias=True, rotary_base=50.0,
            rotary_scaling=LinearScaling(factor=2.0),
        ),
        "qwen3": change(head_width=6, tied=False, query_key_norm=True),
    }  # fmt: skip
    for name in NAMES:
        found = saved.read_config(GOLDEN / f"tiny_{name}")
        assert found == (expected[name], ())


@every_network
def test_round_trip_is_exact(name, tmp_path):
    golden = GOLDEN / f"tiny_{name}"
    network, loaded = load(golden)
    saved.save(tmp_path / "new", network, loaded.params, labels=())
    again, loaded_again = load(tmp_path / "new")
    assert again == network
    assert_equal(loaded_again.params, loaded.params)
    jax.tree.map(
        np.testing.assert_array_equal, tensors_of(tmp_path / "new"), tensors_of(golden)
    )
    assert saved.model_type(network) == name


@every_network
def test_a_body_without_its_head_has_no_prefix(name, tmp_path):
    def as_body(name, tensor):
        return name.removeprefix("model.").removeprefix("transformer."), tensor

    rewrite(tmp_path, name, as_body)
    _, (params, fresh, unread) = load(tmp_path)
    assert (fresh, unread) == ((), ())
    assert_equal(params, load(GOLDEN / f"tiny_{name}")[1].params)


@every_network
def test_bfloat16_weights_become_float32(name, tmp_path):
    rewrite(tmp_path, name, lambda name, x: (name, x.astype(jnp.bfloat16)))
    network, (params, _, _) = load(tmp_path)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    saved.save(tmp_path / "new", network, params, labels=())
    for key, tensor in tensors_of(tmp_path / "new").items():
        np.testing.assert_array_equal(tensor, tensors_of(tmp_path)[key])


def test_shards_are_read_through_their_index(tmp_path):
    rewrite(tmp_path, "llama")
    tensors = tensors_of(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"first.safetensors": names[:9], "second.safetensors": names[9:]}
    for filename, part in shards.items():
        shard = {name: tensors[name] for name in part}
        safetensors.numpy.save_file(shard, tmp_path / filename)
    weight_map = {name: file for file, part in shards.items() for name in part}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert_equal(load(tmp_path)[1].params, load(GOLDEN / "tiny_llama")[1].params)

    safetensors.numpy.save_file(tensors, tmp_path / "first.safetensors")
    with pytest.raises(UserError, match=r"second.safetensors: .* twice, in two files"):
        load(tmp_path)
    whole = (tmp_path / "second.safetensors").read_bytes()
    (tmp_path / "second.safetensors").write_bytes(whole[:-10])
    with pytest.raises(UserError, match=r"second\.safetensors is not a safetensors"):
        load(tmp_path)
    (tmp_path / "second.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no second\.safetensors"):
        load(tmp_path)


def test_all_that_does_not_fit_is_listed(tmp_path):
    def spoil(name, tensor):
        if name.endswith("0.mlp.up_proj.weight"):
            return None
        if name == "model.norm.weight":
            return "model.final_norm.weight", tensor
        if name.endswith("k_proj.weight"):
            return name, tensor[:4]
        return name, tensor

    rewrite(tmp_path, "llama", spoil)
    with pytest.raises(UserError) as refused:
        load(tmp_path)
    layer = "model.layers.{}.self_attn.k_proj.weight is [4, 16], expected [8, 16]"
    assert str(refused.value) == (
        f"{tmp_path}: its weights do not fit the network: it lacks "
        "model.layers.0.mlp.up_proj.weight, model.norm.weight; nothing takes "
        f"model.final_norm.weight; {layer.format(0)}; {layer.format(1)}"
    )


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_rows_beyond_the_vocabulary_are_padding(name, tmp_path):
    rewrite(tmp_path, name, vocab_size=21)
    network, (params, _, unread) = load(tmp_path)
    assert network.vocab_size == 21
    rows = {
        "llama": ("model.embed_tokens.weight[21:]", "lm_head.weight[21:]"),
        "qwen2": ("model.embed_tokens.weight[21:]",),
        "gpt2": ("transformer.wte.weight[21:]",),
    }
    assert unread == rows[name]
    whole = load(GOLDEN / f"tiny_{name}")[1].params
    np.testing.assert_array_equal(params["embeddings"], whole["embeddings"][:21])

    rewrite(tmp_path, name, vocab_size=25)
    with pytest.raises(UserError, match=r"weight is \[24, 16\], expected \[25, 16\]"):
        load(tmp_path)


def test_tied_embeddings_may_be_there_twice(tmp_path):
    rewrite(tmp_path, "qwen2")
    tensors = tensors_of(tmp_path)
    head = tensors["model.embed_tokens.weight"].copy()
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(tensors | {"lm_head.weight": head}, path)
    _, (params, _, unread) = load(tmp_path)
    assert unread == ()
    assert_equal(params, load(GOLDEN / "tiny_qwen2")[1].params)
    head[3, 4] += 1
    safetensors.numpy.save_file(tensors | {"lm_head.weight": head}, path)
    with pytest.raises(UserError, match=r"lm_head\.weight is not model\.embed_tokens"):
        load(tmp_path)


def test_one_name_twice(tmp_path):
    rewrite(tmp_path, "qwen2")
    tensors = tensors_of(tmp_path)
    again = {"norm.weight": tensors["model.norm.weight"].copy()}
    safetensors.numpy.save_file(tensors | again, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"norm\.weight is in the checkpoint twice"):
        load(tmp_path)


def test_masks_that_old_checkpoints_hold(tmp_path):
    rewrite(tmp_path, "gpt2")
    tensors = tensors_of(tmp_path)
    for i in range(2):
        tensors[f"transformer.h.{i}.attn.bias"] = np.tri(32, dtype=np.uint8)
        tensors[f"transformer.h.{i}.attn.masked_bias"] = np.array(-1e4, np.float32)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    assert_equal(load(tmp_path)[1].params, load(GOLDEN / "tiny_gpt2")[1].params)
    rewrite(tmp_path, "llama")
    tensors = tensors_of(tmp_path)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    assert_equal(load(tmp_path)[1].params, load(GOLDEN / "tiny_llama")[1].params)


def test_weights_must_be_finite(tmp_path):
    def spoil(name, tensor):
        if name == "model.norm.weight":
            tensor[1] = np.nan
        return name, tensor

    rewrite(tmp_path, "llama", spoil)
    with pytest.raises(UserError, match=r"of 16 values of model\.norm\.weight, 1 are"):
        load(tmp_path)


def test_pickles_are_refused(tmp_path):
    rewrite(tmp_path, "llama")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has no model\.safetensors.*save_pretrained"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt2", {"activation_function": "gelu"}, "'gelu'; only 'gelu_new' is supp"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "only False is supported"),
        ("gpt2", {"scale_attn_weights": False}, "only True is supported"),
        ("gpt2", {"add_cross_attention": True}, "only False is supported"),
        ("gpt2", {"tie_word_embeddings": False}, "only True is supported"),
        ("gpt2", {"n_layer": None}, "has no n_layer"),
        ("gpt2", {"n_embd": 18}, "width 18 is not divisible by num_heads 4"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu'"),
        ("llama", {"attention_bias": True}, "attention_bias is True; only False"),
        ("llama", {"mlp_bias": True}, "mlp_bias is True; only False"),
        ("llama", {"partial_rotary_factor": 0.5}, r"is 0\.5; only 1\.0 is supported"),
        ("llama", {"rope_interleaved": True}, "rope_interleaved is True; only False"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is {"),
        ("llama", {"auto_map": {"AutoModel": "m.M"}}, "auto_map is {.*; only None"),
        (
            "llama",
            {"tie_word_embeddings": 1},
            "embeddings is 1; expected true or false",
        ),
        ("llama", {"head_dim": 5}, "head_width is 5, must be even"),
        (
            "llama",
            {"rope_scaling": [2.0]},
            r"rope_scaling is \[2\.0\]; expected an obj",
        ),
        (
            "llama",
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_scaling is of the type 'dynamic'; only default, linear and llama3",
        ),
        (
            "llama",
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
            "rope_scaling is of the type 'yarn'; only default, linear and llama3",
        ),
        (
            "llama",
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 3}},
            "rope_scaling has 'beta', which is not supported with the type linear",
        ),
        ("llama", {"rope_scaling": {"rope_type": "linear"}}, "has no factor"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "a partial_rotary_factor other than 1 is not supported",
        ),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window is True; only F"),
        (
            "qwen3",
            {"layer_types": ["full_attention", "sliding_attention"]},
            r"layer_types is \['full_attention', 'sliding_attention'\]; only 'full_a",
        ),
        ("qwen3", {"layer_types": 2}, "layer_types is 2; only 'full_attention'"),
        ("llama", {"rope_scaling": {"type": []}}, r"of the type \[\]; only default"),
        (
            "llama",
            {"rope_parameters": {"full_attention": {}}},
            "has 'full_attention', ",
        ),
        ("qwen3", {"head_dim": None}, "has no head_dim"),
        ("qwen3", {"attention_bias": True}, "attention_bias is True; only False"),
        ("mistral", {"sliding_window": "all"}, "sliding_window is 'all'; expected a w"),
        ("mistral", {"num_key_value_heads": None}, "has no num_key_value_heads"),
        (
            "llama",
            {"model_type": "gemma"},
            "model_type is 'gemma'; expected one of bert, roberta, distilbert, vit, "
            "deit, gpt2, llama, mistral, qwen2, qwen3, t5, bart, kd_mlp, kd_resnet, "
            "kd_wide_resnet",
        ),
    ],
)
def test_what_is_not_computed_is_refused(name, changes, message, tmp_path):
    rewrite(tmp_path, name, **changes)
    with pytest.raises(UserError, match=message) as refused:
        saved.read_config(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'config.json'}")


def test_what_older_files_say(tmp_path):
    older = {
        "rope_parameters": None,
        "rope_theta": 500.0,
        "rope_scaling": {"type": "linear", "factor": 4.0},
        "num_key_value_heads": None,
        "head_dim": None,
    }
    rewrite(tmp_path, "llama", **older)
    llama = cast(Llama, saved.read_config(tmp_path).network)
    assert (llama.rotary_base, llama.rotary_scaling) == (500, LinearScaling(factor=4.0))
    assert (llama.num_key_value_heads, llama.head_width) == (4, 4)
    rewrite(tmp_path, "mistral", sliding_window=None)
    mistral = cast(Llama, saved.read_config(tmp_path).network)
    assert mistral.sliding_window is None
    assert saved.model_type(mistral) == "llama"
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    del values["sliding_window"]
    path.write_text(json.dumps(values))
    mistral = cast(Llama, saved.read_config(tmp_path).network)
    assert mistral.sliding_window == 4096


def test_what_transformers_has_no_network_for(tmp_path):
    both = Llama(attention_bias=True, sliding_window=4)
    with pytest.raises(ValueError, match="cannot be mistral and qwen2 at once"):
        saved.save(tmp_path, both, {}, labels=())


def test_special_tokens_are_stored(tmp_path):
    network, loaded = load(GOLDEN / "tiny_llama")
    assert read_special_tokens(GOLDEN / "tiny_llama") == (None, (3,), 0)
    for tokens in (
        SpecialTokens(1, (2, 5), 0),
        SpecialTokens(end=(4,)),
        SpecialTokens(),
    ):
        saved.save(tmp_path, network, loaded.params, labels=(), special_tokens=tokens)
        assert read_special_tokens(tmp_path) == tokens
    generation = {"eos_token_id": [7, 8], "bos_token_id": -1}
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert read_special_tokens(tmp_path) == SpecialTokens(end=(7, 8))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "end"}')
    with pytest.raises(UserError, match="eos_token_id is 'end'; expected the id of a"):
        read_special_tokens(tmp_path)
