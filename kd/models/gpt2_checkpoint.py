"""Weights of a `GPT2` in and out of the Hugging Face format."""

import os
import typing

from kd.errors import UserError
from kd.models import checkpoint, config_file, hub
from kd.models.gpt2 import GPT2
from kd.models.special_tokens import NO_SPECIAL_TOKENS, SpecialTokens
from kd.types import Params

MODEL_TYPES = ("gpt2",)
"""What config.json calls the architecture."""

TABLE = checkpoint.Table(
    modules={
        "embeddings": "transformer.wte",
        "positions": "transformer.wpe",
        "layer_{i}/attention_norm": "transformer.h.{i}.ln_1",
        "layer_{i}/query_key_value": "transformer.h.{i}.attn.c_attn",
        "layer_{i}/attention_out": "transformer.h.{i}.attn.c_proj",
        "layer_{i}/mlp_norm": "transformer.h.{i}.ln_2",
        "layer_{i}/mlp_in": "transformer.h.{i}.mlp.c_fc",
        "layer_{i}/mlp_out": "transformer.h.{i}.mlp.c_proj",
        "norm": "transformer.ln_f",
        "head": "lm_head",
    },
    prefix="transformer.",
    transposed=False,  # What it calls Conv1D is [in, out], as here.
)

# Field of `GPT2`, key of config.json.
_FIELDS = {
    "vocab_size": "vocab_size",
    "num_layers": "n_layer",
    "width": "n_embd",
    "num_heads": "n_head",
    "mlp_width": "n_inner",
    "max_length": "n_positions",
    "dropout": "resid_pdrop",
    "embedding_dropout": "embd_pdrop",
    "attention_dropout": "attn_pdrop",
    "norm_epsilon": "layer_norm_epsilon",
    "initializer_stddev": "initializer_range",
}
_TYPES = typing.get_type_hints(GPT2)
# What a config.json without the key means, or with null. Other sizes must be there.
_DEFAULTS = {
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
}
# What `GPT2` computes; a config.json without the key means the same.
_SUPPORTED = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "quantization_config": None,
    "auto_map": None,
}


def read_config(name_or_directory: str | os.PathLike[str]) -> GPT2:
    """Reads the sizes of a checkpoint from its `config.json`.

    Raises:
        UserError: there is none, or it describes something `GPT2` does not compute.
    """
    path = hub.find_file(name_or_directory, "config.json")
    if path is None:
        raise UserError(f"{name_or_directory} has no config.json")
    values = {k: v for k, v in hub.read_object(path).items() if v is not None}
    config_file.check_supported(path, values, {"model_type": "gpt2", **_SUPPORTED})
    values = _DEFAULTS | values
    if type(values.get("n_embd")) is int:
        values.setdefault("n_inner", 4 * values["n_embd"])
    fields = config_file.checked_fields(path, values, _FIELDS, _TYPES)
    try:
        return GPT2(**fields)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def save_pretrained(
    directory: str | os.PathLike[str],
    gpt2: GPT2,
    params: Params,
    *,
    special_tokens: SpecialTokens = NO_SPECIAL_TOKENS,
) -> None:
    """Writes a checkpoint that `AutoModelForCausalLM` of transformers reads.

    Args:
        directory: created if need be; `model.safetensors` and `config.json` in it are
            replaced, each in one step.
        gpt2: the sizes of the network.
        params: its parameters, saved in float32.
        special_tokens: where texts begin and end.
    """
    supported = {key: only for key, only in _SUPPORTED.items() if only is not None}
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **supported,
        **{key: getattr(gpt2, name) for name, key in _FIELDS.items()},
        **special_tokens.to_json(),
        "dtype": "float32",
    }
    checkpoint.write(directory, config, params, TABLE)


def model_type(gpt2: GPT2) -> str:
    """What config.json calls the architecture."""
    del gpt2
    return MODEL_TYPES[0]
