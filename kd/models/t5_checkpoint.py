"""Weights of a `T5` in and out of the Hugging Face format.

Of T5, its version 1.1, Flan-T5 and T0.
"""

import os
import reprlib
import typing

from kd.errors import UserError
from kd.models import checkpoint, config_file, hub, tensors
from kd.models.special_tokens import NO_SPECIAL_TOKENS, SpecialTokens
from kd.models.t5 import T5
from kd.types import Params

MODEL_TYPES = ("t5",)
"""What config.json calls the architecture."""

_ENCODER, _DECODER = "encoder.block.{i}.layer", "decoder.block.{i}.layer"
TABLE = checkpoint.Table(
    modules={
        "embeddings": "shared",
        "encoder/distances": (
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
        ),
        "encoder/layer_{i}/attention_norm": f"{_ENCODER}.0.layer_norm",
        "encoder/layer_{i}/attention/query": f"{_ENCODER}.0.SelfAttention.q",
        "encoder/layer_{i}/attention/key": f"{_ENCODER}.0.SelfAttention.k",
        "encoder/layer_{i}/attention/value": f"{_ENCODER}.0.SelfAttention.v",
        "encoder/layer_{i}/attention/out": f"{_ENCODER}.0.SelfAttention.o",
        "encoder/layer_{i}/mlp_norm": f"{_ENCODER}.1.layer_norm",
        "encoder/layer_{i}/mlp_in": f"{_ENCODER}.1.DenseReluDense.wi",
        "encoder/layer_{i}/gate": f"{_ENCODER}.1.DenseReluDense.wi_0",
        "encoder/layer_{i}/up": f"{_ENCODER}.1.DenseReluDense.wi_1",
        "encoder/layer_{i}/mlp_out": f"{_ENCODER}.1.DenseReluDense.wo",
        "encoder/norm": "encoder.final_layer_norm",
        "decoder/distances": (
            "decoder.block.0.layer.0.SelfAttention.relative_attention_bias"
        ),
        "decoder/layer_{i}/attention_norm": f"{_DECODER}.0.layer_norm",
        "decoder/layer_{i}/attention/query": f"{_DECODER}.0.SelfAttention.q",
        "decoder/layer_{i}/attention/key": f"{_DECODER}.0.SelfAttention.k",
        "decoder/layer_{i}/attention/value": f"{_DECODER}.0.SelfAttention.v",
        "decoder/layer_{i}/attention/out": f"{_DECODER}.0.SelfAttention.o",
        "decoder/layer_{i}/cross_attention_norm": f"{_DECODER}.1.layer_norm",
        "decoder/layer_{i}/cross_attention/query": f"{_DECODER}.1.EncDecAttention.q",
        "decoder/layer_{i}/cross_attention/key": f"{_DECODER}.1.EncDecAttention.k",
        "decoder/layer_{i}/cross_attention/value": f"{_DECODER}.1.EncDecAttention.v",
        "decoder/layer_{i}/cross_attention/out": f"{_DECODER}.1.EncDecAttention.o",
        "decoder/layer_{i}/mlp_norm": f"{_DECODER}.2.layer_norm",
        "decoder/layer_{i}/mlp_in": f"{_DECODER}.2.DenseReluDense.wi",
        "decoder/layer_{i}/gate": f"{_DECODER}.2.DenseReluDense.wi_0",
        "decoder/layer_{i}/up": f"{_DECODER}.2.DenseReluDense.wi_1",
        "decoder/layer_{i}/mlp_out": f"{_DECODER}.2.DenseReluDense.wo",
        "decoder/norm": "decoder.final_layer_norm",
        "head": "lm_head",
    },
    prefix="",
    copies=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
)

# Field of `T5`, key of config.json.
_FIELDS = {
    "vocab_size": "vocab_size",
    "num_layers": "num_layers",
    "num_decoder_layers": "num_decoder_layers",
    "width": "d_model",
    "num_heads": "num_heads",
    "head_width": "d_kv",
    "mlp_width": "d_ff",
    "num_buckets": "relative_attention_num_buckets",
    "max_distance": "relative_attention_max_distance",
    "dropout": "dropout_rate",
    "norm_epsilon": "layer_norm_epsilon",
    "initializer_factor": "initializer_factor",
}
_TYPES = typing.get_type_hints(T5)
# What a config.json without the key means, or with null. Other sizes must be there.
_DEFAULTS = {
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "initializer_factor": 1.0,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "decoder_start_token_id": 0,
}
_MLPS = {"relu": False, "gated-gelu": True}
"""By feed_forward_proj, whether it is gated."""
# What `T5` computes; a config.json without the key means the same.
_SUPPORTED = {
    "is_encoder_decoder": True,
    "is_decoder": False,
    "quantization_config": None,
    "auto_map": None,
}
# Values of another key, which transformers derives and some files state.
_DERIVED = {
    "is_gated_act": {"relu": False, "gated-gelu": True},
    "dense_act_fn": {"relu": "relu", "gated-gelu": "gelu_new"},
}


def read_config(name_or_directory: str | os.PathLike[str]) -> T5:
    """Reads the sizes of a checkpoint from its `config.json`.

    Raises:
        UserError: there is none, or it describes something `T5` does not compute.
    """
    path = hub.find_file(name_or_directory, "config.json")
    if path is None:
        raise UserError(f"{name_or_directory} has no config.json")
    values = {k: v for k, v in hub.read_object(path).items() if v is not None}
    config_file.check_supported(path, values, {"model_type": "t5", **_SUPPORTED})
    values = _DEFAULTS | values
    values.setdefault("num_decoder_layers", values.get("num_layers"))
    mlp = values["feed_forward_proj"]
    if not isinstance(mlp, str) or mlp not in _MLPS:
        raise UserError(
            f"{path}: feed_forward_proj is {reprlib.repr(mlp)}; only "
            f"{' and '.join(_MLPS)} are supported"
        )
    derived = {key: by_mlp[mlp] for key, by_mlp in _DERIVED.items()}
    config_file.check_supported(path, values, derived)
    fields = config_file.checked_fields(path, values, _FIELDS, _TYPES)
    tied = config_file.checked_field(
        path, "tie_word_embeddings", values["tie_word_embeddings"], bool
    )
    scaled = config_file.checked_field(
        path, "scale_decoder_outputs", values.get("scale_decoder_outputs", tied), bool
    )
    if tied and not scaled:
        # transformers 5 always says that they are tied, and saves what is not.
        tied = not _has_head(name_or_directory)
    start = config_file.checked_id(
        path, "decoder_start_token_id", values["decoder_start_token_id"]
    )
    try:
        return T5(
            **fields, gated=_MLPS[mlp], tied=tied, scaled=scaled, start_token=start
        )
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def save_pretrained(
    directory: str | os.PathLike[str],
    t5: T5,
    params: Params,
    *,
    special_tokens: SpecialTokens = NO_SPECIAL_TOKENS,
) -> None:
    """Writes a checkpoint that `AutoModelForSeq2SeqLM` of transformers reads.

    Args:
        directory: created if need be; `model.safetensors` and `config.json` in it are
            replaced, each in one step.
        t5: the sizes of the network.
        params: its parameters, saved in float32.
        special_tokens: where texts end.
    """
    mlp = next(name for name, gated in _MLPS.items() if gated == t5.gated)
    supported = {key: only for key, only in _SUPPORTED.items() if only is not None}
    config = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        **supported,
        **{key: getattr(t5, name) for name, key in _FIELDS.items()},
        "feed_forward_proj": mlp,
        "tie_word_embeddings": t5.tied,
        "scale_decoder_outputs": t5.scaled,
        "decoder_start_token_id": t5.start_token,
        **special_tokens.to_json(),
        "dtype": "float32",
    }
    checkpoint.write(directory, config, params, TABLE)


def model_type(t5: T5) -> str:
    """What config.json calls the architecture."""
    del t5
    return MODEL_TYPES[0]


def _has_head(name_or_directory: str | os.PathLike[str]) -> bool:
    head = TABLE.token_rows[1]
    paths = hub.find_weights(name_or_directory)
    return any(head in tensors.names(path) for path in paths)
