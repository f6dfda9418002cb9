"""Weights of a `ViT` in and out of the Hugging Face format.

See `kd.models.hub` for where a checkpoint lies.
"""

import os
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kd.errors import UserError
from kd.models import checkpoint, config_file, hub
from kd.models import tensors as tensor_files
from kd.models.checkpoint import LEAVES, Pretrained
from kd.models.vit import ViT
from kd.types import Params

MODEL_TYPES = ("vit", "deit")
"""What config.json calls the architectures: without and with a distillation token."""

_LAYER = "encoder.layer.{i}"
_MODULES = {
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "attention_out": "attention.output.dense",
    "attention_norm": "layernorm_before",
    "mlp_in": "intermediate.dense",
    "mlp_out": "output.dense",
    "mlp_norm": "layernorm_after",
}
_HEADS = {
    "vit": {"label": "classifier"},
    "deit": {"label": "cls_classifier", "distillation": "distillation_classifier"},
}
CLASSES = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassificationWithTeacher",
}
"""What transformers calls the networks with their classifiers."""
_FIELDS = {
    "patch_size": "patch_size",
    "num_layers": "num_hidden_layers",
    "width": "hidden_size",
    "num_heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
    "initializer_stddev": "initializer_range",
}
# What a config.json without the key means.
_DEFAULTS = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "patch_size": 16,
}
# What `ViT` computes; a config.json without the key means the same.
_SUPPORTED = {
    "hidden_act": "gelu",
    "qkv_bias": True,
    "use_mask_token": False,
    "quantization_config": None,
    "auto_map": None,
}
_TYPES = typing.get_type_hints(ViT)


def model_type(vit: ViT) -> str:
    """What config.json calls the architecture."""
    return "deit" if vit.distillation_token else "vit"


def read_config(
    name_or_directory: str | os.PathLike[str],
) -> tuple[ViT, tuple[str, ...]]:
    """Reads the sizes, and the name of each class, from a checkpoint's `config.json`.

    Raises:
        UserError: there is none, or it describes something `ViT` does not compute.
    """
    path = hub.find_file(name_or_directory, "config.json")
    if path is None:
        raise UserError(f"{name_or_directory} has no config.json")
    values = {k: v for k, v in hub.read_object(path).items() if v is not None}
    config_file.check_supported(path, values, _SUPPORTED)
    fields = config_file.checked_fields(path, _DEFAULTS | values, _FIELDS, _TYPES)
    kind = values.get("model_type")
    classes = values.get("architectures")
    if kind == "deit" and classes == ["DeiTForImageClassification"]:
        raise UserError(
            f"{path}: a DeiTForImageClassification drops the distillation token's "
            "classifier; DeiTForImageClassificationWithTeacher is supported"
        )
    try:
        vit = ViT(**fields, distillation_token=kind == "deit")
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    labels = config_file.read_labels(path, values) or ("LABEL_0", "LABEL_1")
    return vit, labels


def load_pretrained(
    name_or_directory: str | os.PathLike[str], vit: ViT, template: Params
) -> Pretrained:
    """Fills the parameters of a `ViT` from a checkpoint's safetensors.

    Args:
        name_or_directory: see `kd.models.hub.find_file`.
        vit: the sizes.
        template: freshly initialised parameters, whose classifiers are kept where the
            checkpoint has none; or their shapes.

    Returns:
        Parameters in float32, and what was not loaded.

    Raises:
        UserError: there are no safetensors or they cannot be read, a tensor of the
            body is missing, or one has another shape than its place in the network.
    """
    kind = model_type(vit)
    # As ViTModel saves them: without a prefix.
    found = {
        name.removeprefix(f"{kind}."): tensor
        for name, tensor in checkpoint.read(name_or_directory).items()
    }
    read: set[str] = set()
    fresh: set[str] = set()
    problems: list[str] = []

    def fill(path: tuple[Any, ...], initial: Any) -> Any:
        keys = tuple(entry.key for entry in path)
        names = _names(keys, kind)
        missing = [name for name in names if name not in found]
        if missing and keys[0] == "classifier":
            fresh.add("classifier")
            return initial
        if missing:
            problems.append(f"they lack {missing[0]}")
            return initial
        read.update(names)
        _, inwards = _turned(keys, initial.shape)
        try:
            value = inwards([found[name] for name in names])
        except (ValueError, IndexError):
            value = found[names[0]]
        if value.shape != initial.shape:
            problems.append(
                f"{names[0]} is {list(found[names[0]].shape)}, which does not make "
                f"{list(initial.shape)}"
            )
            return initial
        return jnp.asarray(value, jnp.float32)

    params = jax.tree.map_with_path(fill, template)
    if problems:
        raise UserError(
            f"{name_or_directory}: the weights do not fit the network: "
            f"{'; '.join(problems)}"
        )
    unread = tuple(sorted(map(tensor_files.shown, found.keys() - read)))
    return Pretrained(params, tuple(fresh), unread)


def save_pretrained(
    directory: str | os.PathLike[str],
    vit: ViT,
    params: Params,
    *,
    labels: Sequence[str],
) -> None:
    """Writes a checkpoint that transformers reads.

    Images are taken to be square, which it requires.

    Args:
        directory: created if need be; `model.safetensors` and `config.json` in it are
            replaced, each in one step.
        vit: the sizes of the network.
        params: its parameters, saved in float32.
        labels: name of each class.
    """
    kind = model_type(vit)
    tensors: dict[str, np.ndarray] = {}
    for path, value in jax.tree.leaves_with_path(params):
        keys = tuple(entry.key for entry in path)
        outwards, _ = _turned(keys, value.shape, vit.patch_size)
        prefix = "" if keys[0] == "classifier" else f"{kind}."
        arrays = outwards(np.asarray(value, np.float32))
        for name, array in zip(_names(keys, kind), arrays, strict=True):
            tensors[prefix + name] = array
    positions = params["embeddings"]["positions"].shape[0] - vit.num_tokens
    channels = params["embeddings"]["patches"]["kernel"].shape[0] // vit.patch_size**2
    supported = {key: only for key, only in _SUPPORTED.items() if only is not None}
    config = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        **{key: only for key, only in supported.items() if key != "use_mask_token"},
        **{key: getattr(vit, name) for name, key in _FIELDS.items()},
        "image_size": vit.patch_size * round(positions**0.5),
        "num_channels": channels,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "dtype": "float32",
    }
    checkpoint.put(directory, config, tensors)


def _names(keys: tuple[str, ...], kind: str) -> list[str]:
    """The tensors, without a prefix, of the parameter at `keys`."""
    leaf = LEAVES.get(keys[-1], "")
    if keys[0] == "classifier":
        return [f"{_HEADS[kind][keys[1]]}.{leaf}"]
    if keys[0] == "norm":
        return [f"layernorm.{leaf}"]
    if keys[0] == "embeddings":
        if keys[1] == "tokens":
            more = ["embeddings.distillation_token"] * (kind == "deit")
            return ["embeddings.cls_token", *more]
        if keys[1] == "positions":
            return ["embeddings.position_embeddings"]
        return [f"embeddings.patch_embeddings.projection.{leaf}"]
    layer, module, _ = keys
    place = _LAYER.format(i=layer.removeprefix("layer_"))
    return [f"{place}.{_MODULES[module]}.{leaf}"]


def _turned(
    keys: tuple[str, ...], shape: tuple[int, ...], patch_size: int = 0
) -> tuple[
    Callable[[np.ndarray], list[np.ndarray]], Callable[[list[np.ndarray]], np.ndarray]
]:
    """How a parameter becomes tensors, and how these become it."""
    if keys[:2] == ("embeddings", "tokens"):
        return (
            lambda x: [row[None, None] for row in x],
            lambda found: np.concatenate([x[0] for x in found]),
        )
    if keys[:2] == ("embeddings", "positions"):
        return lambda x: [x[None]], lambda found: found[0][0]
    if keys == ("embeddings", "patches", "kernel"):
        # A convolution there, [d, c, h, w]; here a matrix of the pixels in a row.
        square = (patch_size, patch_size, -1, shape[1])
        return (
            lambda x: [np.ascontiguousarray(x.reshape(square).transpose(3, 2, 0, 1))],
            lambda found: found[0].transpose(2, 3, 1, 0).reshape(-1, shape[1]),
        )
    if keys[-1] == "kernel":
        return lambda x: [np.ascontiguousarray(x.T)], lambda found: found[0].T
    return lambda x: [x], lambda found: found[0]
