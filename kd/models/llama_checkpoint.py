"""Weights of a `Llama` in and out of the Hugging Face format.

Of Llama 2 and 3, SmolLM2, Mistral, Qwen2, Qwen2.5 and Qwen3.
"""

import os
import reprlib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd.errors import UserError
from kd.models import checkpoint, config_file, hub
from kd.models.llama import Llama
from kd.models.rotary import LinearScaling, Llama3Scaling
from kd.models.special_tokens import NO_SPECIAL_TOKENS, SpecialTokens
from kd.types import Params

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
MODEL_TYPES = tuple(_CLASSES)
"""What config.json calls the architectures that a `Llama` is."""

TABLE = checkpoint.Table(
    modules={
        "embeddings": "model.embed_tokens",
        "layer_{i}/attention_norm": "model.layers.{i}.input_layernorm",
        "layer_{i}/query": "model.layers.{i}.self_attn.q_proj",
        "layer_{i}/key": "model.layers.{i}.self_attn.k_proj",
        "layer_{i}/value": "model.layers.{i}.self_attn.v_proj",
        "layer_{i}/query_norm": "model.layers.{i}.self_attn.q_norm",
        "layer_{i}/key_norm": "model.layers.{i}.self_attn.k_norm",
        "layer_{i}/attention_out": "model.layers.{i}.self_attn.o_proj",
        "layer_{i}/mlp_norm": "model.layers.{i}.post_attention_layernorm",
        "layer_{i}/gate": "model.layers.{i}.mlp.gate_proj",
        "layer_{i}/up": "model.layers.{i}.mlp.up_proj",
        "layer_{i}/down": "model.layers.{i}.mlp.down_proj",
        "norm": "model.norm",
        "head": "lm_head",
    },
    prefix="model.",
)

# Field of `Llama`, key of config.json.
_FIELDS = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "width": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "head_width": "head_dim",
    "mlp_width": "intermediate_size",
    "max_length": "max_position_embeddings",
    "tied": "tie_word_embeddings",
    "sliding_window": "sliding_window",
    "attention_dropout": "attention_dropout",
    "norm_epsilon": "rms_norm_eps",
    "initializer_stddev": "initializer_range",
}
_TYPES = typing.get_type_hints(Llama) | {"sliding_window": int}
# What a config.json without the key means, or with null. Other sizes must be there.
_DEFAULTS = {
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
}
# What `Llama` computes; a config.json without the key means the same.
_SUPPORTED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
    "rope_interleaved": False,
    "quantization_config": None,
    "auto_map": None,
}
# By the type of a scaling, its class and, for each field of it, the key.
_SCALINGS = {
    "linear": (LinearScaling, {"factor": "factor"}),
    "llama3": (
        Llama3Scaling,
        {
            "factor": "factor",
            "low": "low_freq_factor",
            "high": "high_freq_factor",
            "original": "original_max_position_embeddings",
        },
    ),
}


def read_config(name_or_directory: str | os.PathLike[str]) -> Llama:
    """Reads the sizes of a checkpoint from its `config.json`.

    Raises:
        UserError: there is none, or it describes something `Llama` does not compute.
    """
    path = hub.find_file(name_or_directory, "config.json")
    if path is None:
        raise UserError(f"{name_or_directory} has no config.json")
    values = hub.read_object(path)
    kind = values.get("model_type")
    if kind == "mistral":
        values.setdefault("sliding_window", 4096)  # Of transformers; null means none.
    values = {key: value for key, value in values.items() if value is not None}
    if kind not in MODEL_TYPES:
        raise UserError(
            f"{path}: model_type is {reprlib.repr(kind)}; expected one of "
            f"{', '.join(MODEL_TYPES)}"
        )
    config_file.check_supported(path, values, _SUPPORTED)
    layers = values.get("layer_types", [])
    full = isinstance(layers, list) and all(x == "full_attention" for x in layers)
    if kind != "mistral" and not full:  # Mistral's code does not look at it.
        raise UserError(
            f"{path}: layer_types is {reprlib.repr(layers)}; only 'full_attention' is "
            "supported"
        )
    fields: dict[str, Any] = {}
    for name, key in _FIELDS.items():
        if name == "sliding_window" and (kind != "mistral" or key not in values):
            continue
        value = config_file.required(path, _derived(values, kind), key)
        fields[name] = config_file.checked_field(path, key, value, _TYPES[name])
    base, scaling = _rotary(path, values)
    try:
        return Llama(
            **fields,
            attention_bias=kind == "qwen2",
            query_key_norm=kind == "qwen3",
            rotary_base=base,
            rotary_scaling=scaling,
        )
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def save_pretrained(
    directory: str | os.PathLike[str],
    llama: Llama,
    params: Params,
    *,
    special_tokens: SpecialTokens = NO_SPECIAL_TOKENS,
) -> None:
    """Writes a checkpoint that `AutoModelForCausalLM` of transformers reads.

    Args:
        directory: created if need be; `model.safetensors` and `config.json` in it are
            replaced, each in one step.
        llama: the sizes of the network.
        params: its parameters, saved in float32.
        special_tokens: where texts begin and end.

    Raises:
        ValueError: transformers has no such network.
    """
    kind = model_type(llama)
    supported = {key: only for key, only in _SUPPORTED.items() if only is not None}
    config = {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        **supported,
        **{key: getattr(llama, name) for name, key in _FIELDS.items()},
        "rope_theta": llama.rotary_base,
        "rope_scaling": _scaling_to_json(llama),
        **special_tokens.to_json(),
        "dtype": "float32",
    }
    checkpoint.write(directory, config, params, TABLE)


def model_type(llama: Llama) -> str:
    """What config.json calls the architecture that a network is.

    Raises:
        ValueError: transformers has no network with all that makes this one special.
    """
    special = {
        "mistral": llama.sliding_window is not None,
        "qwen2": llama.attention_bias,
        "qwen3": llama.query_key_norm,
    }
    kinds = [kind for kind, is_so in special.items() if is_so] or ["llama"]
    if len(kinds) > 1:
        raise ValueError(
            f"a network cannot be {' and '.join(kinds)} at once: of sliding_window, "
            "attention_bias and query_key_norm transformers' networks have one"
        )
    return kinds[0]


def _derived(values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """With what transformers takes for keys that are not there."""
    derived = _DEFAULTS | dict(values)
    heads, width = values.get("num_attention_heads"), values.get("hidden_size")
    if type(heads) is int and type(width) is int and heads > 0 and kind != "qwen3":
        derived.setdefault("head_dim", width // heads)
    if kind == "llama" and heads is not None:
        derived.setdefault("num_key_value_heads", heads)
    return derived


def _rotary(
    path: Path, values: Mapping[str, Any]
) -> tuple[float, LinearScaling | Llama3Scaling | None]:
    """The base of the rotary frequencies, and their scaling."""
    where = "rope_scaling" if "rope_scaling" in values else "rope_parameters"
    found = values.get(where, {})
    if not isinstance(found, dict):
        raise UserError(f"{path}: {where} is {reprlib.repr(found)}; expected an object")
    found = {key: value for key, value in found.items() if value is not None}
    kind = found.pop("rope_type", found.pop("type", "default"))
    found.pop("type", None)
    base = found.pop("rope_theta", values.get("rope_theta", 10_000.0))
    base = config_file.checked_field(path, "rope_theta", base, float)
    if found.pop("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(
            f"{path}: a partial_rotary_factor other than 1 is not supported"
        )
    if not isinstance(kind, str) or kind not in ("default", *_SCALINGS):
        raise UserError(
            f"{path}: {where} is of the type {reprlib.repr(kind)}; only default, "
            f"{' and '.join(_SCALINGS)} are supported"
        )
    scaling, keys = _SCALINGS.get(kind, (None, {}))
    if unknown := sorted(found.keys() - set(keys.values())):
        raise UserError(
            f"{path}: {where} has {', '.join(map(reprlib.repr, unknown))}, which is "
            f"not supported with the type {kind}"
        )
    if scaling is None:
        return base, None
    types = typing.get_type_hints(scaling)
    fields = {
        name: config_file.checked_field(
            path, f"{where}.{key}", config_file.required(path, found, key), types[name]
        )
        for name, key in keys.items()
    }
    return base, scaling(**fields)


def _scaling_to_json(llama: Llama) -> dict[str, Any] | None:
    for kind, (scaling, keys) in _SCALINGS.items():
        if isinstance(llama.rotary_scaling, scaling):
            values = vars(llama.rotary_scaling)
            return {"rope_type": kind} | {keys[name]: values[name] for name in keys}
    return None
