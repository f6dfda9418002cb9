"""BERT weights in and out of the Hugging Face format.

See `kd.models.hub` for where a checkpoint lies.
"""

import json
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from kd.atomic import atomic_write
from kd.errors import UserError
from kd.models import config_file, hub
from kd.models import tensors as tensor_files
from kd.models.bert import Bert
from kd.models.checkpoint import Pretrained
from kd.types import Params

Head = Literal["SequenceClassification", "MultipleChoice"]
"""What transformers calls what stands on a BERT. The tensors have the same names; of
choices there is one output, a number for each text, and logits are the numbers of an
example's choices."""

# Ours on the left; on the right the module of transformers' BertModel, which models
# with a head and the pretraining models prefix with "bert.".
_MODULES = {
    "embeddings/tokens": "embeddings.word_embeddings",
    "embeddings/segments": "embeddings.token_type_embeddings",
    "embeddings/positions": "embeddings.position_embeddings",
    "embeddings/norm": "embeddings.LayerNorm",
    "layer_{i}/query": "encoder.layer.{i}.attention.self.query",
    "layer_{i}/key": "encoder.layer.{i}.attention.self.key",
    "layer_{i}/value": "encoder.layer.{i}.attention.self.value",
    "layer_{i}/attention_out": "encoder.layer.{i}.attention.output.dense",
    "layer_{i}/attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "layer_{i}/mlp_in": "encoder.layer.{i}.intermediate.dense",
    "layer_{i}/mlp_out": "encoder.layer.{i}.output.dense",
    "layer_{i}/mlp_norm": "encoder.layer.{i}.output.LayerNorm",
    "pooler": "pooler.dense",
    "classifier": "classifier",
}
# A kernel is [in, out] in Linen and [out, in] in torch: the only ones transposed.
_LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight", "": "weight"}

# Field of `Bert`, key of config.json.
_FIELDS = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "width": "hidden_size",
    "num_heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "max_length": "max_position_embeddings",
    "num_segments": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
    "initializer_stddev": "initializer_range",
}
_TYPES = typing.get_type_hints(Bert)
# What `Bert` computes; a config.json without the key means the same.
_SUPPORTED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
}


class Config(NamedTuple):
    """What a checkpoint says about itself."""

    bert: Bert
    labels: tuple[str, ...]
    """Name of each class; as many as there are logits."""

    @property
    def num_classes(self) -> int:
        return len(self.labels)


def read_config(name_or_directory: str | os.PathLike[str]) -> Config:
    """Reads the sizes and labels of a checkpoint from its `config.json`.

    Raises:
        UserError: there is none, or it describes something `Bert` does not compute.
    """
    path = hub.find_file(name_or_directory, "config.json")
    if path is None:
        raise UserError(f"{name_or_directory} has no config.json")
    values = hub.read_object(path)
    config_file.check_supported(path, values, _SUPPORTED)
    missing = [key for key in ("hidden_size", "num_hidden_layers") if key not in values]
    if missing:
        raise UserError(f"{path} has no {missing[0]}; it must be a BERT's config.json")
    fields = {
        name: config_file.checked_field(path, key, values[key], _TYPES[name])
        for name, key in _FIELDS.items()
        if key in values
    }
    try:
        bert = Bert(**fields)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    labels = config_file.read_labels(path, values) or ("LABEL_0", "LABEL_1")
    # Of these transformers writes any number of labels, most often the default.
    choices = values.get("architectures") == ["BertForMultipleChoice"]
    return Config(bert, ("choice",) if choices and len(labels) != 1 else labels)


def load_pretrained(
    name_or_directory: str | os.PathLike[str], template: Params
) -> Pretrained:
    """Fills the parameters of a `Bert` from a checkpoint's safetensors.

    Reads what transformers saves from BertModel, BertForPreTraining,
    BertForMaskedLM, BertForSequenceClassification and BertForMultipleChoice, of any
    float type. Where the checkpoint has more layers than the network, the first ones
    are taken.

    Args:
        name_or_directory: see `kd.models.hub.find_file`.
        template: freshly initialised parameters; give the expected shapes, and the
            values of a pooler or classifier that the checkpoint does not have. Where
            it is known to have both, `jax.eval_shape` of `Model.init` is enough.

    Returns:
        Parameters in float32, and what was not loaded.

    Raises:
        UserError: there are no safetensors or they cannot be read, an encoder tensor
            is missing, or a tensor has another shape than its place in the network,
            is not of a float type, or holds a number that is not finite.
    """
    tensors = _read_tensors(name_or_directory)
    fresh: set[str] = set()
    read: set[str] = set()

    def fill(path: tuple[Any, ...], initial: Any) -> Any:
        keys = tuple(entry.key for entry in path)
        name = _tensor_name(keys)
        if name not in tensors and keys[0] in ("pooler", "classifier"):
            fresh.add(keys[0])
            return initial
        if name not in tensors:
            raise UserError(f"{name_or_directory}: the weights lack {name}")
        read.add(name)
        transposed = keys[-1] == "kernel"
        expected = initial.shape[::-1] if transposed else initial.shape
        _check_shape(name_or_directory, name, tensors[name].shape, expected)
        tensor = tensors[name].T if transposed else tensors[name]
        return jnp.asarray(tensor, jnp.float32)

    params = jax.tree.map_with_path(fill, template)
    unread = sorted(tensors.keys() - read)
    return Pretrained(params, tuple(sorted(fresh)), tuple(unread))


def save_pretrained(
    directory: str | os.PathLike[str],
    bert: Bert,
    params: Params,
    *,
    labels: Sequence[str] | None = None,
    head: Head = "SequenceClassification",
    problem_type: str = "",
) -> None:
    """Writes a checkpoint that from_pretrained of transformers' BertFor… reads.

    Args:
        directory: created if need be; `model.safetensors` and `config.json` in it are
            replaced, each in one step.
        bert: the sizes of the network.
        params: its parameters, saved in float32.
        labels: name of each class; LABEL_0, LABEL_1, … by default.
        head: what follows BertFor in the name of the class there.
        problem_type: what transformers calls the task of a SequenceClassification,
            such as "regression", which sets the loss there; left out if empty.

    Raises:
        ValueError: there are more or fewer labels than logits.
    """
    num_classes = params["classifier"]["bias"].shape[0]
    labels = labels or [f"LABEL_{i}" for i in range(num_classes)]
    if len(labels) != num_classes:
        raise ValueError(f"{len(labels)} labels for {num_classes} classes")
    tensors = {}
    for path, value in jax.tree.leaves_with_path(params):
        keys = tuple(entry.key for entry in path)
        prefix = "" if keys[0] == "classifier" else "bert."
        array = np.asarray(value, np.float32)
        array = array.T if keys[-1] == "kernel" else array
        tensors[prefix + _tensor_name(keys)] = np.ascontiguousarray(array)
    config = {
        "architectures": [f"BertFor{head}"],
        **_SUPPORTED,
        **{key: getattr(bert, name) for name, key in _FIELDS.items()},
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "pad_token_id": 0,
        "dtype": "float32",
        **_problem(head, problem_type),
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # transformers refuses safetensors that do not say which framework they are for.
    weights = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    with atomic_write(directory / "model.safetensors", "wb") as file:
        file.write(weights)
    with atomic_write(directory / "config.json") as file:
        file.write(json.dumps(config, indent=2) + "\n")


def _problem(head: Head, problem_type: str) -> dict[str, str]:
    told = problem_type and head == "SequenceClassification"
    return {"problem_type": problem_type} if told else {}


def _tensor_name(keys: tuple[str, ...]) -> str:
    """The name in BertModel of the parameter at `keys`, a path in our tree."""
    *module, leaf = keys if keys[-1] in _LEAVES else (*keys, "")
    path, index = "/".join(module), ""
    if path.startswith("layer_"):
        index, _, rest = path.removeprefix("layer_").partition("/")
        path = "layer_{i}/" + rest
    return f"{_MODULES[path].format(i=index)}.{_LEAVES[leaf]}"


def _read_tensors(name_or_directory: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All weights of a checkpoint, under the names that BertModel gives them now."""
    weights: dict[str, np.ndarray] = {}
    for path in hub.find_weights(name_or_directory):
        for old_name, tensor in tensor_files.read(path).items():
            name = (
                old_name.removeprefix("bert.")
                .replace("LayerNorm.gamma", "LayerNorm.weight")
                .replace("LayerNorm.beta", "LayerNorm.bias")
            )
            # Which of two is meant, nobody can say.
            if name in weights:
                raise UserError(
                    f"{path}: {tensor_files.shown(old_name)} is in the checkpoint "
                    "twice, in two files or under an old and a new name; once is right"
                )
            weights[name] = tensor
    return weights


def _check_shape(
    source: object, name: str, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    if shape == expected:
        return
    problem = "does not fit the network"
    only_rows_differ = len(shape) > 0 and shape[1:] == expected[1:]
    if name.startswith("classifier.") and only_rows_differ:
        problem = f"has {shape[0]} classes, the task has {expected[0]}"
    if "word_embeddings" in name and only_rows_differ:
        problem = (
            f"has embeddings for {shape[0]} tokens, the network a vocab_size of "
            f"{expected[0]}"
        )
    raise UserError(
        f"{source} {problem}: {name} is {list(shape)}, expected {list(expected)}"
    )
