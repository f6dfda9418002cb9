"""Networks in a directory: `model.safetensors` and `config.json`, or a GGUF file.

A BERT, a ViT or a language model is stored as Hugging Face stores it, see
`kd.models.bert_checkpoint` and the others of that name. Any other network is stored as
it is: tensors by their path in the tree of parameters, joined by dots, in Flax's layout
(kernels are [in, out] or [h, w, in, out]); and the fields of its record, with the class
named by "model_type". Nothing in either file is executed.
"""

import dataclasses
import json
import os
import reprlib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from kd.atomic import atomic_write
from kd.errors import UserError
from kd.models import (
    bart_checkpoint,
    bert_checkpoint,
    checkpoint,
    config_file,
    gguf_file,
    gpt2_checkpoint,
    hub,
    llama_checkpoint,
    llama_gguf,
    t5_checkpoint,
    vit_checkpoint,
)
from kd.models import tensors as tensor_files
from kd.models.bart import Bart
from kd.models.bert import Bert
from kd.models.bert_checkpoint import Head
from kd.models.checkpoint import Pretrained
from kd.models.gpt2 import GPT2
from kd.models.llama import Llama
from kd.models.mlp import MLP
from kd.models.resnet import ResNet
from kd.models.special_tokens import NO_SPECIAL_TOKENS, SpecialTokens
from kd.models.t5 import T5
from kd.models.vit import ViT
from kd.models.wide_resnet import WideResNet
from kd.types import Architecture, Params

_CLASSES: dict[str, type] = {
    "kd_mlp": MLP,
    "kd_resnet": ResNet,
    "kd_wide_resnet": WideResNet,
}
"""By the model_type of config.json. The prefix keeps transformers from taking a
network for one of its own."""
ENCODER_DECODERS: dict[type, Any] = {T5: t5_checkpoint, Bart: bart_checkpoint}
"""The modules that read and write them."""
LANGUAGE_MODELS: dict[type, Any] = {
    GPT2: gpt2_checkpoint,
    Llama: llama_checkpoint,
    **ENCODER_DECODERS,
}
"""Likewise, of all networks that write."""
_NOT_FIELDS = {"id2label", "label2id", "problem_type"}
"""What config.json has beside the model_type and the fields of a record."""


class Config(NamedTuple):
    """What a stored network says about itself."""

    network: Architecture
    labels: tuple[str, ...]
    """Name of each class; as many as there are logits, but none of a language model,
    whose classes are its tokens."""


def model_type(network: Architecture) -> str:
    """What config.json calls the class of a network.

    Raises:
        TypeError: this module does not know the class, so could not read it back.
    """
    if isinstance(network, Bert):
        return network.variant
    if isinstance(network, ViT):
        return vit_checkpoint.model_type(network)
    if type(network) in LANGUAGE_MODELS:
        return LANGUAGE_MODELS[type(network)].model_type(network)
    for name, known in _CLASSES.items():
        if type(network) is known:
            return name
    raise TypeError(
        f"{type(network).__name__} is not listed in kd.models.saved, so it could not "
        "be read back"
    )


def save(
    directory: str | os.PathLike[str],
    network: Architecture,
    params: Params,
    *,
    labels: Sequence[str],
    head: Head = "SequenceClassification",
    problem_type: str = "",
    special_tokens: SpecialTokens = NO_SPECIAL_TOKENS,
) -> None:
    """Writes a network; `read_config` and `load` read it back.

    Args:
        directory: created if need be; `model.safetensors` and `config.json` in it are
            replaced, each in one step.
        network: its sizes.
        params: its parameters, saved in float32.
        labels: name of each class; not stored of a language model.
        head: what transformers calls the outputs of a BERT.
        problem_type: what it calls the task, such as "regression"; left out if empty.
        special_tokens: where the texts of a language model begin and end.
    """
    if isinstance(network, Bert):
        bert_checkpoint.save_pretrained(
            directory,
            network,
            params,
            labels=labels,
            head=head,
            problem_type=problem_type,
        )
        return
    if isinstance(network, ViT):
        vit_checkpoint.save_pretrained(directory, network, params, labels=labels)
        return
    if type(network) in LANGUAGE_MODELS:
        LANGUAGE_MODELS[type(network)].save_pretrained(
            directory, network, params, special_tokens=special_tokens
        )
        return
    fields: dict[str, Any] = dataclasses.asdict(network)  # pyrefly: ignore
    config = {
        "model_type": model_type(network),
        **fields,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        **({"problem_type": problem_type} if problem_type else {}),
    }
    tensors = {
        _name(path): np.ascontiguousarray(value, np.float32)
        for path, value in jax.tree.leaves_with_path(params)
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with atomic_write(directory / "model.safetensors", "wb") as file:
        file.write(safetensors.numpy.save(tensors))
    with atomic_write(directory / "config.json") as file:
        file.write(json.dumps(config, indent=2) + "\n")


def read_config(name_or_directory: str | os.PathLike[str]) -> Config:
    """Reads the sizes and labels of a stored network.

    Raises:
        UserError: there is no `config.json`, or it describes none of our networks.
    """
    if (file := gguf_file.find(name_or_directory)) is not None:
        return Config(llama_gguf.read_config(file), labels=())
    path = hub.find_file(name_or_directory, "config.json")
    if path is None:
        raise UserError(f"{name_or_directory} has no config.json")
    values = hub.read_object(path)
    kind = values.pop("model_type", "bert")
    if kind in bert_checkpoint.MODEL_TYPES:
        return Config(*bert_checkpoint.read_config(name_or_directory))
    if kind in vit_checkpoint.MODEL_TYPES:
        return Config(*vit_checkpoint.read_config(name_or_directory))
    for module in LANGUAGE_MODELS.values():
        if kind in module.MODEL_TYPES:
            return Config(module.read_config(name_or_directory), labels=())
    if not isinstance(kind, str) or kind not in _CLASSES:
        known = (*bert_checkpoint.MODEL_TYPES, *vit_checkpoint.MODEL_TYPES)
        others = [t for m in LANGUAGE_MODELS.values() for t in m.MODEL_TYPES]
        raise UserError(
            f"{path}: model_type is {reprlib.repr(kind)}; expected one of "
            f"{', '.join([*known, *others, *_CLASSES])}"
        )
    labels = config_file.read_labels(path, values)
    types = typing.get_type_hints(_CLASSES[kind])
    fields = {}
    for key in values.keys() - _NOT_FIELDS:
        if key not in types:
            raise UserError(
                f"{path}: {tensor_files.shown(key)} is no field of a {kind}; it has "
                f"{', '.join(types)}"
            )
        fields[key] = config_file.checked_field(path, key, values[key], types[key])
    try:
        return Config(_CLASSES[kind](**fields), labels)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def load(
    name_or_directory: str | os.PathLike[str], network: Architecture, template: Params
) -> Pretrained:
    """Fills the parameters of a network from what was stored.

    Args:
        name_or_directory: see `kd.models.hub.find_file`.
        network: of the class that `read_config` found there.
        template: its initial parameters, or their shapes.

    Returns:
        Parameters in float32, and what was not loaded.

    Raises:
        UserError: there are no safetensors or they cannot be read, a tensor is
            missing, or one has another shape than its place in the network, is not of
            a float type, or holds a number that is not finite.
    """
    if isinstance(network, Bert):
        return bert_checkpoint.load_pretrained(
            name_or_directory, template, network.variant
        )
    if isinstance(network, ViT):
        return vit_checkpoint.load_pretrained(name_or_directory, network, template)
    file = gguf_file.find(name_or_directory)
    if file is not None and isinstance(network, Llama):
        return llama_gguf.load_pretrained(file, network, template)
    if type(network) in LANGUAGE_MODELS:
        table = LANGUAGE_MODELS[type(network)].TABLE
        return checkpoint.load_pretrained(name_or_directory, template, table)
    path = hub.find_file(name_or_directory, "model.safetensors")
    if path is None:
        raise UserError(f"{name_or_directory} has no model.safetensors")
    tensors = tensor_files.read(path)

    def fill(place: tuple[Any, ...], initial: Any) -> Any:
        name = _name(place)
        if name not in tensors:
            raise UserError(f"{path}: the weights lack {name}")
        if tensors[name].shape != initial.shape:
            raise UserError(
                f"{path}: {name} is {list(tensors[name].shape)}, expected "
                f"{list(initial.shape)}"
            )
        return jnp.asarray(tensors.pop(name), jnp.float32)

    params = jax.tree.map_with_path(fill, template)
    return Pretrained(params, fresh=(), unread=tuple(sorted(tensors)))


def fetch(name_or_directory: str) -> None:
    """Makes sure that a network's config and weights are at hand.

    Raises:
        UserError: they are not, and cannot be downloaded.
    """
    network = read_config(name_or_directory).network
    if gguf_file.find(name_or_directory) is not None:
        return
    if isinstance(network, Bert | ViT) or type(network) in LANGUAGE_MODELS:
        hub.find_weights(name_or_directory)
    elif hub.find_file(name_or_directory, "model.safetensors") is None:
        raise UserError(f"{name_or_directory} has no model.safetensors")


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(entry.key for entry in path)
