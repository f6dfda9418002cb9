"""Weights of a `Llama` from GGUF files, whose architectures are llama, qwen2 and qwen3.

They are those of `kd.models.llama_checkpoint` under other names.
"""

import reprlib
import typing
from pathlib import Path
from typing import Any

import numpy as np

from kd.errors import UserError
from kd.models import checkpoint, config_file, gguf_file, rotary
from kd.models.checkpoint import Pretrained
from kd.models.llama import Llama
from kd.models.rotary import LinearScaling, Llama3Scaling
from kd.types import Params

ARCHITECTURES = ("llama", "qwen2", "qwen3")

TABLE = checkpoint.Table(
    modules={
        "embeddings": "token_embd",
        "layer_{i}/attention_norm": "blk.{i}.attn_norm",
        "layer_{i}/query": "blk.{i}.attn_q",
        "layer_{i}/key": "blk.{i}.attn_k",
        "layer_{i}/value": "blk.{i}.attn_v",
        "layer_{i}/query_norm": "blk.{i}.attn_q_norm",
        "layer_{i}/key_norm": "blk.{i}.attn_k_norm",
        "layer_{i}/attention_out": "blk.{i}.attn_output",
        "layer_{i}/mlp_norm": "blk.{i}.ffn_norm",
        "layer_{i}/gate": "blk.{i}.ffn_gate",
        "layer_{i}/up": "blk.{i}.ffn_up",
        "layer_{i}/down": "blk.{i}.ffn_down",
        "norm": "output_norm",
        "head": "output",
    },
    prefix="",
)
_FREQUENCIES = "rope_freqs.weight"
"""What rotary frequencies are divided by, where they are scaled as in Llama 3."""

# Field of `Llama`, key of the metadata, after the architecture.
_FIELDS = {
    "num_layers": "block_count",
    "width": "embedding_length",
    "num_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_width": "attention.key_length",
    "mlp_width": "feed_forward_length",
    "max_length": "context_length",
    "rotary_base": "rope.freq_base",
    "norm_epsilon": "attention.layer_norm_rms_epsilon",
}
_TYPES = typing.get_type_hints(Llama)


def read_config(path: Path) -> Llama:
    """Reads the sizes of a network from a file's metadata.

    Raises:
        UserError: it describes something `Llama` does not compute.
    """
    values = gguf_file.read_metadata(path)
    kind = config_file.required(path, values, "general.architecture")
    if kind not in ARCHITECTURES:
        raise UserError(
            f"{path}: its architecture is {reprlib.repr(kind)}; expected one of "
            f"{', '.join(ARCHITECTURES)}"
        )
    sizes = {
        key.removeprefix(f"{kind}."): value
        for key, value in values.items()
        if key.startswith(f"{kind}.")
    }
    heads = config_file.required(path, sizes, "attention.head_count")
    width = config_file.required(path, sizes, "embedding_length")
    if type(heads) is int and type(width) is int and heads > 0:
        sizes.setdefault("attention.head_count_kv", heads)
        sizes.setdefault("attention.key_length", width // heads)
    sizes.setdefault("rope.freq_base", 10_000.0)
    fields: dict[str, Any] = {
        name: config_file.checked_field(
            path, key, config_file.required(path, sizes, key), _TYPES[name]
        )
        for name, key in _FIELDS.items()
    }
    head_width = fields["head_width"]
    supported = {
        "attention.value_length": head_width,
        "rope.dimension_count": head_width,
        "expert_count": 0,
        "attention.causal": True,
        "attention.scale": None,
        "rope.scaling.attn_factor": 1.0,
        "embedding_scale": None,
        "residual_scale": None,
        "logit_scale": None,
    }
    config_file.check_supported(path, sizes, supported)
    if "attention.sliding_window" in sizes:
        fields["sliding_window"] = config_file.checked_field(
            path, "sliding_window", sizes["attention.sliding_window"], int
        )
    shapes = gguf_file.read_shapes(path)
    embeddings = config_file.required(path, shapes, "token_embd.weight")
    try:
        return Llama(
            **fields,
            vocab_size=embeddings[0],
            tied="output.weight" not in shapes,
            attention_bias=kind == "qwen2",
            query_key_norm=kind == "qwen3",
            rotary_scaling=_scaling(path, sizes, fields),
        )
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def load_pretrained(path: Path, llama: Llama, template: Params) -> Pretrained:
    """Fills the parameters of a `Llama` from a file's tensors, dequantized.

    Args:
        path: of the file.
        llama: the network.
        template: its parameters, or their shapes.

    Returns:
        Parameters in float32, and rows of padding that were left out.

    Raises:
        UserError: the file cannot be read, or tensors are missing, of another shape or
            for nothing.
    """
    tensors = gguf_file.read_tensors(path)
    tensors.pop(_FREQUENCIES, None)  # `read_config` has read it.
    if gguf_file.read_metadata(path)["general.architecture"] == "llama":
        for name, tensor in tensors.items():
            for part, num_heads in (
                ("attn_q.weight", llama.num_heads),
                ("attn_k.weight", llama.num_key_value_heads),
            ):
                if name.endswith(part):
                    tensors[name] = _unwoven(tensor, num_heads)
    return checkpoint.fill(path, tensors, template, TABLE)


def _unwoven(tensor: np.ndarray, num_heads: int) -> np.ndarray:
    """Features in the order of transformers.

    There the pairs that are turned together are i and i + e/2 of a head; in files of
    the architecture llama they are 2 i and 2 i + 1.
    """
    if tensor.ndim != 2 or len(tensor) % (2 * num_heads):
        return tensor  # Of another shape than there must be, which will be told.
    pairs = tensor.reshape(num_heads, -1, 2, tensor.shape[1])
    return pairs.swapaxes(1, 2).reshape(tensor.shape)


def _scaling(
    path: Path, sizes: dict[str, Any], fields: dict[str, Any]
) -> LinearScaling | Llama3Scaling | None:
    kind = sizes.get("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise UserError(
            f"{path}: rope.scaling.type is {reprlib.repr(kind)}; only none and linear "
            "are supported"
        )
    if kind == "linear":
        factor = config_file.required(path, sizes, "rope.scaling.factor")
        factor = config_file.checked_field(path, "rope.scaling.factor", factor, float)
        return LinearScaling(factor=factor)
    divisors = gguf_file.read_tensors(path, only=_FREQUENCIES).get(_FREQUENCIES)
    if divisors is None:
        return None
    # Llama 3's settings but for the factor are the same in all of its networks.
    scaling = Llama3Scaling(factor=float(divisors.max()))
    plain = rotary.frequencies(fields["head_width"], fields["rotary_base"])
    expected = plain / scaling(plain)
    if divisors.shape != expected.shape or not np.allclose(divisors, expected, 1e-4):
        raise UserError(
            f"{path}: {_FREQUENCIES} scales frequencies in another way than Llama 3, "
            "which is not supported"
        )
    return scaling
