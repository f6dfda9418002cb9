"""Decoders that transformers made, and those that it reads, in both directions."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.models import saved
from kd.models.gpt2 import GPT2
from kd.models.llama import Llama
from kd.models.llama_checkpoint import save_pretrained
from kd.models.rotary import LinearScaling, Llama3Scaling
from kd.models.special_tokens import SpecialTokens

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from golden import make_tiny_decoders as tiny  # noqa: E402  It imports torch.

BATCH = tiny.inputs()
REAL = BATCH["token_mask"].numpy()
SMOL = Llama(
    vocab_size=24,
    num_layers=3,
    width=16,
    num_heads=4,
    num_key_value_heads=1,
    head_width=6,
    mlp_width=20,
    max_length=32,
    rotary_base=1000.0,
)
LLAMA = dataclasses.replace(SMOL, num_key_value_heads=2, tied=False)
LLAMA3 = Llama3Scaling(factor=4.0, original=16)
NETWORKS = {
    "gpt2": GPT2(
        vocab_size=24, num_layers=3, width=16, num_heads=2, mlp_width=40, max_length=32
    ),
    "smollm2": SMOL,
    "llama": LLAMA,
    "llama3": dataclasses.replace(LLAMA, rotary_scaling=LLAMA3),
    "linear": dataclasses.replace(LLAMA, rotary_scaling=LinearScaling(factor=3.0)),
    "mistral": dataclasses.replace(LLAMA, sliding_window=4),
    "qwen2": dataclasses.replace(LLAMA, head_width=4, attention_bias=True, tied=True),
    "qwen3": dataclasses.replace(LLAMA, query_key_norm=True),
}


def logits_there(network):
    mask = BATCH["token_mask"].long()
    with torch.no_grad():
        outputs = network(
            input_ids=BATCH["tokens"],
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        )
    return outputs.logits.numpy()


def logits_here(network, params):
    batch = {
        "tokens": jnp.asarray(BATCH["tokens"].numpy(), jnp.int32),
        "token_mask": jnp.asarray(REAL),
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
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values()), info
    np.testing.assert_allclose(
        logits_here(network, params)[REAL],
        logits_there(theirs)[REAL],
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("name", tiny.CONFIGS)
@pytest.mark.parametrize("shard", ["1GB", "5KB"])
def test_what_transformers_saves_is_read(name, shard, tmp_path):
    theirs = tiny.model(tiny.CONFIGS[name])
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors").exists() == (shard == "1GB")
    network = cast(Any, saved.read_config(tmp_path).network)
    template = jax.eval_shape(network.build().init, jax.random.key(0), {})
    params, fresh, unread = saved.load(tmp_path, network, template)
    assert (fresh, unread) == ((), ())
    np.testing.assert_allclose(
        logits_here(network, params)[REAL],
        logits_there(theirs)[REAL],
        rtol=1e-4,
        atol=1e-5,
    )


def test_special_tokens_are_those_of_transformers(tmp_path):
    network = NETWORKS["llama"]
    params = jax.jit(network.build().init)(jax.random.key(0), {})
    save_pretrained(
        tmp_path, network, params, special_tokens=SpecialTokens(1, (2, 5), 0)
    )
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (config.bos_token_id, config.eos_token_id) == (1, [2, 5])
    assert config.pad_token_id == 0
