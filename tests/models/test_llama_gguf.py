"""GGUF files: written here by the package, and a real one where there is one."""

import dataclasses
import os
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.data import byte_bpe
from kd.errors import UserError
from kd.models import checkpoint, gguf_file, hub, llama_gguf, saved
from kd.models.generate import Greedy, generate
from kd.models.llama import Llama
from kd.models.rotary import LinearScaling, Llama3Scaling
from kd.models.special_tokens import SpecialTokens, read_special_tokens
from kd.networks.place import place

gguf = pytest.importorskip("gguf")

LLAMA = Llama(
    vocab_size=40,
    num_layers=2,
    width=64,
    num_heads=4,
    num_key_value_heads=2,
    head_width=16,
    mlp_width=96,
    max_length=128,
    rotary_base=1000.0,
)
NETWORKS = {
    "llama": LLAMA,
    "untied": dataclasses.replace(LLAMA, tied=False, head_width=32),
    "linear": dataclasses.replace(LLAMA, rotary_scaling=LinearScaling(factor=2.0)),
    "llama3": dataclasses.replace(
        LLAMA, rotary_scaling=Llama3Scaling(factor=32.0), rotary_base=500_000.0
    ),
    "window": dataclasses.replace(LLAMA, sliding_window=8),
    "qwen2": dataclasses.replace(LLAMA, attention_bias=True),
    "qwen3": dataclasses.replace(LLAMA, query_key_norm=True, tied=False),
}
TOKENS = ["<end>", "<begin>", "a", "b", "c", "Ġ", "ab", "Ġab", "1", "2", "12"]


def parameters(llama):
    shapes = jax.eval_shape(llama.build().init, jax.random.key(0), {})
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: random.normal(0, 0.3, x.shape).astype(np.float32), shapes
    )


def woven(tensor, num_heads):
    """As the converter of llama.cpp permutes query and key."""
    halves = tensor.reshape(num_heads, 2, -1, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def write(path, name="llama", kind="F32", **changes):
    """A file with random weights; returns network and parameters."""
    llama, arch = NETWORKS[name], name if name.startswith("qwen") else "llama"
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(llama.num_layers)
    writer.add_context_length(llama.max_length)
    writer.add_embedding_length(llama.width)
    writer.add_feed_forward_length(llama.mlp_width)
    writer.add_head_count(llama.num_heads)
    writer.add_head_count_kv(llama.num_key_value_heads)
    writer.add_layer_norm_rms_eps(llama.norm_epsilon)
    writer.add_rope_freq_base(llama.rotary_base)
    if llama.head_width != llama.width // llama.num_heads:
        writer.add_key_length(llama.head_width)
        writer.add_value_length(llama.head_width)
    if llama.sliding_window is not None:
        writer.add_sliding_window(llama.sliding_window)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.pop("pre", "smollm"))
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, *[1] * (len(TOKENS) - 2)])
    writer.add_token_merges(["a b", "Ġ ab", "1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(changes.pop("add_begin", False))
    if isinstance(llama.rotary_scaling, LinearScaling):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(llama.rotary_scaling.factor)
    if isinstance(llama.rotary_scaling, Llama3Scaling):
        plain = llama.rotary_base ** -(np.arange(0, 16, 2) / 16)
        divisors = (plain / llama.rotary_scaling(plain)).astype(np.float32)
        divisors *= changes.pop("divisors", 1.0)
        writer.add_tensor("rope_freqs.weight", divisors)
    for key, value in changes.pop("values", {}).items():
        add = writer.add_uint32 if type(value) is int else writer.add_string
        add(f"{arch}.{key}", value)
    params = parameters(llama)
    for key, leaf in jax.tree.leaves_with_path(params):
        tensor = checkpoint._turned(key, leaf, llama_gguf.TABLE)
        tensor_name = llama_gguf.TABLE.name(key)
        if arch == "llama" and ".attn_q." in tensor_name:
            tensor = woven(tensor, llama.num_heads)
        if arch == "llama" and ".attn_k." in tensor_name:
            tensor = woven(tensor, llama.num_key_value_heads)
        tensor = np.ascontiguousarray(tensor)
        if tensor.ndim == 1 or kind == "F32":
            writer.add_tensor(tensor_name, tensor)
        else:
            type_ = gguf.GGMLQuantizationType[kind]
            codes = gguf.quants.quantize(tensor, type_)
            writer.add_tensor(tensor_name, codes, raw_dtype=type_)
    assert not changes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return llama, params


def load(path):
    network = cast(Any, saved.read_config(path).network)
    template = jax.eval_shape(network.build().init, jax.random.key(0), {})
    return network, saved.load(path, network, template)


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_and_weights_are_read(name, tmp_path):
    path = tmp_path / "model.gguf"
    llama, params = write(path, name)
    network, (found, fresh, unread) = load(path)
    assert network == llama
    assert (fresh, unread) == ((), ())
    jax.tree.map(np.testing.assert_array_equal, found, params)
    # A directory with one file stands for it.
    assert saved.read_config(tmp_path) == (llama, ())
    saved.fetch(str(tmp_path))


def q8_0(x):
    """The definition: 32 numbers share a float16 scale, codes are whole."""
    blocks = x.reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / 127
    codes = np.round(blocks / np.where(scale == 0, 1, scale))
    return (codes * scale.astype(np.float16).astype(np.float32)).reshape(x.shape)


def q4_1(x):
    """The definition: 32 numbers share float16 scale and minimum, 16 codes."""
    blocks = x.reshape(-1, 32)
    least = blocks.min(1, keepdims=True)
    scale = (blocks.max(1, keepdims=True) - least) / 15
    codes = np.floor((blocks - least) / scale + 0.5).clip(0, 15)
    half = [y.astype(np.float16).astype(np.float32) for y in (scale, least)]
    return (codes * half[0] + half[1]).reshape(x.shape)


@pytest.mark.parametrize(
    ("kind", "definition", "tolerance"),
    [
        ("F16", lambda x: x.astype(np.float16).astype(np.float32), 0),
        ("Q8_0", q8_0, 1e-6),
        ("Q4_1", q4_1, 1e-6),
    ],
)
def test_weights_are_dequantized(kind, definition, tolerance, tmp_path):
    path = tmp_path / "model.gguf"
    llama, params = write(path, kind=kind)
    _, (found, _, _) = load(path)
    for key, leaf in jax.tree.leaves_with_path(params):
        theirs = found
        for entry in key:
            theirs = theirs[entry.key]
        expected = leaf
        if leaf.ndim == 2:
            turned = checkpoint._turned(key, leaf, llama_gguf.TABLE)
            rounded = definition(np.ascontiguousarray(turned))
            expected = checkpoint._turned(key, rounded, llama_gguf.TABLE)
            # A code may be the neighbour where a number lies just between two.
            off = np.abs(theirs - expected) > tolerance + 1e-6 * np.abs(expected)
            assert off.mean() < 0.002
        else:
            np.testing.assert_array_equal(theirs, expected)
    assert llama.width == 64


def test_bfloat16_codes_are_read(tmp_path):
    path = tmp_path / "model.gguf"
    _, params = write(path, kind="BF16")
    _, (found, _, _) = load(path)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0.004), found, params
    )


def test_tokens_and_merges_make_the_tokenizer(tmp_path):
    write(tmp_path / "model.gguf")
    tokenizer = byte_bpe.load(tmp_path)
    ids = tokenizer.encode("ab ab<end>c12").ids
    # Digits stand alone, so that "12" is never merged.
    assert [TOKENS[i] for i in ids] == ["ab", "Ġab", "<end>", "c", "1", "2"]
    assert tokenizer.decode(ids) == "ab abc12"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "ab ab<end>c12"
    assert read_special_tokens(tmp_path) == SpecialTokens(end=(0,))
    assert byte_bpe.num_ids(tokenizer) == len(TOKENS)

    path = tmp_path / "other.gguf"
    write(path, pre="gpt-2", add_begin=True)
    tokenizer = byte_bpe.load(path)
    assert [TOKENS[i] for i in tokenizer.encode("c12").ids] == ["<begin>", "c", "12"]
    assert read_special_tokens(path) == SpecialTokens(begin=1, end=(0,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"values": {"rope.scaling.type": "yarn"}}, "type is 'yarn'; only none and li"),
        ({"values": {"expert_count": 4}}, "expert_count is 4; only 0 is supported"),
        ({"values": {"rope.dimension_count": 8}}, "dimension_count is 8; only 16"),
        ({"name": "llama3", "divisors": 1.1}, "in another way than Llama 3"),
        ({"pre": "tekken"}, "cuts texts as 'tekken'; only gpt-2, smollm, llama-bpe"),
    ],
)
def test_what_is_not_computed_is_refused(settings, message, tmp_path):
    path = tmp_path / "model.gguf"
    write(path, **settings)
    with pytest.raises(UserError, match=message) as refused:
        saved.read_config(path)
        byte_bpe.load(path)
    assert str(refused.value).startswith(f"{path}: ")


def test_other_architectures_are_refused(tmp_path):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "gemma")
    writer.add_tokenizer_model("llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError, match="'gemma'; expected one of llama, qwen2, qwen3"):
        saved.read_config(path)
    with pytest.raises(UserError, match="its tokenizer is 'llama'; only 'gpt2'"):
        byte_bpe.load(path)


def test_damaged_files_are_one_line(tmp_path):
    path = tmp_path / "model.gguf"
    write(path)
    whole = path.read_bytes()
    for part in (b"", b"GGUF", b"PK\x03\x04" + whole[4:], whole[:300], whole[:-999]):
        path.write_bytes(part)
        with pytest.raises(UserError, match=r"model\.gguf is not a whole GGUF") as told:
            load(path)
        assert "\n" not in str(told.value)


def test_tensors_that_do_not_fit_are_listed(tmp_path):
    path = tmp_path / "model.gguf"
    llama, _ = write(path)
    deeper = dataclasses.replace(llama, num_layers=3)
    template = jax.eval_shape(deeper.build().init, jax.random.key(0), {})
    with pytest.raises(
        UserError, match=r"it lacks blk\.2\.attn_k\.weight, blk\.2\.att"
    ):
        saved.load(path, deeper, template)


def test_a_file_is_a_place(tmp_path):
    path = tmp_path / "model.gguf"
    write(path)
    assert place(str(path)) == str(path)
    before = hub.fingerprint(str(path))
    assert before == hub.fingerprint(str(tmp_path))
    write(path, "qwen2")
    assert hub.fingerprint(str(path)) != before
    write(tmp_path / "other.gguf")
    with pytest.raises(UserError, match=r"has model\.gguf, other\.gguf; give one"):
        gguf_file.find(tmp_path)


# --- a real one ---


@pytest.fixture(scope="module")
def smollm2():
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    folder = Path(os.environ.get("KD_WEIGHTS", f"{cache}/kd-weights")).expanduser()
    if not (folder / "smollm2").is_dir():
        pytest.skip(f"no real weights: there is no {folder}/smollm2 (KD_WEIGHTS)")
    return folder / "smollm2"


@pytest.mark.slow
def test_smollm2_writes_english(smollm2):
    network, loaded = load(smollm2)
    assert network == Llama.smollm2_135m()
    tokenizer = byte_bpe.load(smollm2)
    special = read_special_tokens(smollm2)
    ids = tokenizer.encode("The capital of France is").ids
    assert tokenizer.decode(ids) == "The capital of France is"
    batch = {
        "tokens": jnp.array([ids], jnp.int32),
        "token_mask": jnp.ones((1, len(ids)), bool),
    }
    model = network.build()
    written = generate(
        model, loaded.params, batch, jax.random.key(0), Greedy(), num_tokens=8,
        end=special.end,
    )  # fmt: skip
    assert "Paris" in tokenizer.decode(np.asarray(written.tokens[0]).tolist())


@pytest.mark.slow
def test_smollm2_has_the_logits_of_transformers(smollm2):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    network, loaded = load(smollm2)
    (file,) = smollm2.glob("*.gguf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2, gguf_file=file.name, dtype=torch.float32
    )
    ids = (
        byte_bpe.load(smollm2).encode("Optimal transport moves 12 piles of earth.").ids
    )
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.numpy()
    batch = {
        "tokens": jnp.array([ids], jnp.int32),
        "token_mask": jnp.ones((1, len(ids)), bool),
    }
    logits = jax.jit(network.build().apply)(loaded.params, batch, None).logits
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=2e-3)
