"""Weights of a `Bart` in and out of the Hugging Face format."""

import os
import reprlib
import typing

from kd.errors import UserError
from kd.models import checkpoint, config_file, hub
from kd.models.bart import Bart
from kd.models.special_tokens import NO_SPECIAL_TOKENS, SpecialTokens
from kd.types import Params

MODEL_TYPES = ("bart",)
"""What config.json calls the architecture."""

_ENCODER, _DECODER = "model.encoder.layers.{i}", "model.decoder.layers.{i}"
TABLE = checkpoint.Table(
    modules={
        "embeddings": "model.shared",
        "encoder/positions": "model.encoder.embed_positions",
        "encoder/embedding_norm": "model.encoder.layernorm_embedding",
        "encoder/layer_{i}/attention/query": f"{_ENCODER}.self_attn.q_proj",
        "encoder/layer_{i}/attention/key": f"{_ENCODER}.self_attn.k_proj",
        "encoder/layer_{i}/attention/value": f"{_ENCODER}.self_attn.v_proj",
        "encoder/layer_{i}/attention/out": f"{_ENCODER}.self_attn.out_proj",
        "encoder/layer_{i}/attention_norm": f"{_ENCODER}.self_attn_layer_norm",
        "encoder/layer_{i}/mlp_in": f"{_ENCODER}.fc1",
        "encoder/layer_{i}/mlp_out": f"{_ENCODER}.fc2",
        "encoder/layer_{i}/mlp_norm": f"{_ENCODER}.final_layer_norm",
        "decoder/positions": "model.decoder.embed_positions",
        "decoder/embedding_norm": "model.decoder.layernorm_embedding",
        "decoder/layer_{i}/attention/query": f"{_DECODER}.self_attn.q_proj",
        "decoder/layer_{i}/attention/key": f"{_DECODER}.self_attn.k_proj",
        "decoder/layer_{i}/attention/value": f"{_DECODER}.self_attn.v_proj",
        "decoder/layer_{i}/attention/out": f"{_DECODER}.self_attn.out_proj",
        "decoder/layer_{i}/attention_norm": f"{_DECODER}.self_attn_layer_norm",
        "decoder/layer_{i}/cross_attention/query": f"{_DECODER}.encoder_attn.q_proj",
        "decoder/layer_{i}/cross_attention/key": f"{_DECODER}.encoder_attn.k_proj",
        "decoder/layer_{i}/cross_attention/value": f"{_DECODER}.encoder_attn.v_proj",
        "decoder/layer_{i}/cross_attention/out": f"{_DECODER}.encoder_attn.out_proj",
        "decoder/layer_{i}/cross_attention_norm": f"{_DECODER}.encoder_attn_layer_norm",
        "decoder/layer_{i}/mlp_in": f"{_DECODER}.fc1",
        "decoder/layer_{i}/mlp_out": f"{_DECODER}.fc2",
        "decoder/layer_{i}/mlp_norm": f"{_DECODER}.final_layer_norm",
        "head": "lm_head",
    },
    prefix="model.",
    copies=("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
    buffers={"head_bias": "final_logits_bias"},
)

# Field of `Bart`, key of config.json.
_FIELDS = {
    "vocab_size": "vocab_size",
    "num_layers": "encoder_layers",
    "num_decoder_layers": "decoder_layers",
    "width": "d_model",
    "num_heads": "encoder_attention_heads",
    "mlp_width": "encoder_ffn_dim",
    "max_length": "max_position_embeddings",
    "scaled": "scale_embedding",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "mlp_dropout": "activation_dropout",
    "initializer_stddev": "init_std",
}
_SAME = {
    "encoder_attention_heads": "decoder_attention_heads",
    "encoder_ffn_dim": "decoder_ffn_dim",
}
"""Sizes that encoder and decoder share here."""
_TYPES = typing.get_type_hints(Bart)
# What a config.json without the key means, or with null. Other sizes must be there.
_DEFAULTS = {
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "init_std": 0.02,
    "scale_embedding": False,
    "decoder_start_token_id": 2,
}
# What `Bart` computes; a config.json without the key means the same. Keys from
# normalize_before on are of the first published files.
_SUPPORTED = {
    "activation_function": "gelu",
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "is_encoder_decoder": True,
    "is_decoder": False,
    "tie_word_embeddings": True,
    "quantization_config": None,
    "auto_map": None,
    "normalize_before": False,
    "normalize_embedding": True,
    "add_final_layer_norm": False,
    "static_position_embeddings": False,
}


def read_config(name_or_directory: str | os.PathLike[str]) -> Bart:
    """Reads the sizes of a checkpoint from its `config.json`.

    Raises:
        UserError: there is none, or it describes something `Bart` does not compute.
    """
    path = hub.find_file(name_or_directory, "config.json")
    if path is None:
        raise UserError(f"{name_or_directory} has no config.json")
    values = {k: v for k, v in hub.read_object(path).items() if v is not None}
    config_file.check_supported(path, values, {"model_type": "bart", **_SUPPORTED})
    values = _DEFAULTS | values
    fields = config_file.checked_fields(path, values, _FIELDS, _TYPES)
    for key, other in _SAME.items():
        if values[key] != config_file.required(path, values, other):
            raise UserError(
                f"{path}: {key} is {values[key]} and {other} "
                f"{reprlib.repr(values[other])}; only equal ones are supported"
            )
    start = config_file.checked_id(
        path, "decoder_start_token_id", values["decoder_start_token_id"]
    )
    try:
        return Bart(**fields, start_token=start)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def save_pretrained(
    directory: str | os.PathLike[str],
    bart: Bart,
    params: Params,
    *,
    special_tokens: SpecialTokens = NO_SPECIAL_TOKENS,
) -> None:
    """Writes a checkpoint that `AutoModelForSeq2SeqLM` of transformers reads.

    Args:
        directory: created if need be; `model.safetensors` and `config.json` in it are
            replaced, each in one step.
        bart: the sizes of the network.
        params: its parameters, saved in float32.
        special_tokens: where texts begin and end.
    """
    supported = {key: only for key, only in _SUPPORTED.items() if only is not None}
    sizes = {key: getattr(bart, name) for name, key in _FIELDS.items()}
    config = {
        "architectures": ["BartForConditionalGeneration"],
        "model_type": "bart",
        **supported,
        **sizes,
        **{other: sizes[key] for key, other in _SAME.items()},
        "decoder_start_token_id": bart.start_token,
        "forced_eos_token_id": None,
        **special_tokens.to_json(),
        "dtype": "float32",
    }
    checkpoint.write(directory, config, params, TABLE)


def model_type(bart: Bart) -> str:
    """What config.json calls the architecture."""
    del bart
    return MODEL_TYPES[0]
