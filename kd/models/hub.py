"""BERT weights in and out of the Hugging Face format.

A checkpoint is a directory, or a name on the hub, with `config.json` and
`model.safetensors`. Pickled weights (`pytorch_model.bin`) are never opened.
"""

import hashlib
import json
import os
import reprlib
import typing
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import huggingface_hub
import huggingface_hub.errors
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from kd.atomic import atomic_write
from kd.errors import UserError
from kd.models import tensors as tensor_files
from kd.models.bert import Bert
from kd.types import Params

# Ours on the left; on the right the module of transformers' BertModel, which
# BertForSequenceClassification and the pretraining models prefix with "bert.".
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
_LARGEST = 2**24
"""Of any size in a config.json; past every network that fits a machine, and short of
what overflows."""
_MOST_LAYERS = 1024
_LAYERS = ("num_hidden_layers", "num_blocks")
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


class Pretrained(NamedTuple):
    """Parameters from a checkpoint, and what did not match up."""

    params: Params
    fresh: tuple[str, ...]
    """Modules that the checkpoint lacks and that kept their initial values: of
    "pooler" and "classifier"."""
    unread: tuple[str, ...]
    """Tensors of the checkpoint that the network has no place for."""


def find_file(name_or_directory: str | os.PathLike[str], filename: str) -> Path | None:
    """Locates one file of a checkpoint, downloading it from the hub if need be.

    Args:
        name_or_directory: an existing directory, or else a name on the hub such as
            `bert-base-uncased` or `organisation/model`.
        filename: for example `vocab.txt`.

    Returns:
        Where the file lies, or None if the checkpoint has no such file.

    Raises:
        UserError: no such directory, no such name, or the hub cannot be reached.
    """
    try:
        directory = Path(name_or_directory).expanduser()
        if directory.is_dir():
            path = directory / filename
            return path if path.is_file() else None
    except (OSError, RuntimeError) as error:  # RuntimeError: a home of nobody.
        raise UserError(f"{name_or_directory} cannot be read: {error}") from error
    name = os.fspath(name_or_directory)
    try:
        return Path(huggingface_hub.hf_hub_download(name, filename))
    except huggingface_hub.errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"{name}: no such directory, and {filename} cannot be downloaded from the "
            "hub (no network?); give a directory that has it"
        ) from error
    except huggingface_hub.errors.EntryNotFoundError:
        return None
    except (
        huggingface_hub.errors.HFValidationError,
        huggingface_hub.errors.RepositoryNotFoundError,
    ) as error:
        raise UserError(
            f"{name}: no such directory, and no such model on the hub (or no access)"
        ) from error
    except (huggingface_hub.errors.HfHubHTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{name}: {filename} cannot be downloaded: {reason}") from error


def fetch(name_or_directory: str) -> None:
    """Makes sure that a checkpoint's config and weights are at hand.

    Raises:
        UserError: they are not, and cannot be downloaded.
    """
    read_config(name_or_directory)
    _weight_files(name_or_directory)


def fingerprint(name_or_directory: str) -> str:
    """What identifies a checkpoint: its name on the hub, or its files in a directory.

    Returns:
        The name itself, or the SHA-256 of a directory's weights, config and
        vocabulary.

    Raises:
        UserError: a file cannot be read.
    """
    directory = Path(name_or_directory).expanduser()
    if not name_or_directory or not directory.is_dir():
        return name_or_directory
    digest = hashlib.sha256()
    try:
        for path in sorted(directory.iterdir()):
            if path.suffix in (".safetensors", ".json", ".txt") and path.is_file():
                digest.update(os.fsencode(path.name))
                with open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise UserError(f"{name_or_directory} cannot be read: {error}") from error
    return digest.hexdigest()


def read_config(name_or_directory: str | os.PathLike[str]) -> Config:
    """Reads the sizes and labels of a checkpoint from its `config.json`.

    Raises:
        UserError: there is none, or it describes something `Bert` does not compute.
    """
    path = find_file(name_or_directory, "config.json")
    if path is None:
        raise UserError(f"{name_or_directory} has no config.json")
    values = read_object(path)
    for key, supported in _SUPPORTED.items():
        if values.get(key, supported) != supported:
            raise UserError(
                f"{path}: {key} is {reprlib.repr(values[key])}; only {supported!r} is "
                "supported"
            )
    missing = [key for key in ("hidden_size", "num_hidden_layers") if key not in values]
    if missing:
        raise UserError(f"{path} has no {missing[0]}; it must be a BERT's config.json")
    fields = {
        name: checked_field(path, key, values[key], _TYPES[name])
        for name, key in _FIELDS.items()
        if key in values
    }
    try:
        bert = Bert(**fields)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return Config(bert, read_labels(path, values) or ("LABEL_0", "LABEL_1"))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object, found {reprlib.repr(values)}")
    return values


def checked_field(path: Path, key: str, value: Any, kind: Any) -> Any:
    """A size or rate of a network as its record has it.

    Args:
        path: of the file that holds it, for the message.
        key: its name there.
        value: as JSON has it.
        kind: the type of the record's field, one of int, float and tuple[int, ...].

    Raises:
        UserError: the value is of another type, or of no use as a size.
    """
    # A bool is an int to Python, and 16.0 equals 16: the types must be the same.
    found = reprlib.repr(value)
    if kind is float:
        # JSON has integers that no float holds, and Python reads NaN and Infinity.
        if type(value) not in (int, float) or not -_LARGEST <= value <= _LARGEST:
            raise UserError(f"{path}: {key} is {found}; expected a small number")
        return value
    if kind is int:
        # Layers are laid out one by one, so that many would take forever.
        largest = _MOST_LAYERS if key in _LAYERS else _LARGEST
        if type(value) is not int or not 1 <= value <= largest:
            raise UserError(
                f"{path}: {key} is {found}; expected a whole number from 1 to {largest}"
            )
        return value
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_LAYERS:
        raise UserError(
            f"{path}: {key} is {found}; expected a list of 1 to {_MOST_LAYERS} sizes"
        )
    return tuple(
        checked_field(path, f"{key}[{i}]", size, int) for i, size in enumerate(value)
    )


def read_labels(path: Path, values: dict[str, Any]) -> tuple[str, ...]:
    """The names of the classes that a config.json gives, in order; () if none.

    Raises:
        UserError: `id2label` does not give one name to each of 0, 1, …, or `label2id`
            says otherwise.
    """
    names, indices = values.get("id2label"), values.get("label2id")
    names = {} if names is None else names
    indices = {} if indices is None else indices
    if not isinstance(names, dict) or names.keys() != set(map(str, range(len(names)))):
        raise UserError(
            f"{path}: id2label is {reprlib.repr(names)}; expected an object with the "
            'keys "0", "1", … up to the number of classes less one'
        )
    labels = tuple(names[str(i)] for i in range(len(names)))
    for i, label in enumerate(labels):
        if not isinstance(label, str):
            raise UserError(
                f"{path}: id2label gives {reprlib.repr(label)} to {i}; "
                "expected a string"
            )
    if len(set(labels)) < len(labels):
        twice = next(label for i, label in enumerate(labels) if label in labels[:i])
        raise UserError(
            f"{path}: id2label has {reprlib.repr(twice)} twice; expected another name "
            "for each class"
        )
    if not isinstance(indices, dict):
        raise UserError(
            f"{path}: label2id is {reprlib.repr(indices)}; expected an object"
        )
    # Many files of the hub name classes in one of the two and have LABEL_0, LABEL_1
    # in the other, which says nothing else; a name in both has one place.
    for i, label in enumerate(labels):
        if label in indices and (
            type(indices[label]) is not int or indices[label] != i
        ):
            raise UserError(
                f"{path}: label2id gives {reprlib.repr(indices[label])} to "
                f"{reprlib.repr(label)}, id2label {i}; they must agree"
            )
    return labels


def load_pretrained(
    name_or_directory: str | os.PathLike[str], template: Params
) -> Pretrained:
    """Fills the parameters of a `Bert` from a checkpoint's safetensors.

    Reads what transformers saves from BertModel, BertForPreTraining,
    BertForMaskedLM and BertForSequenceClassification, of any float type. Where the
    checkpoint has more layers than the network, the first ones are taken.

    Args:
        name_or_directory: see `find_file`.
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
    problem_type: str = "",
) -> None:
    """Writes a checkpoint that BertForSequenceClassification.from_pretrained reads.

    Args:
        directory: created if need be; `model.safetensors` and `config.json` in it are
            replaced, each in one step.
        bert: the sizes of the network.
        params: its parameters, saved in float32.
        labels: name of each class; LABEL_0, LABEL_1, … by default.
        problem_type: what transformers calls the task, such as "regression", which
            sets the loss there; left out if empty.

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
        "architectures": ["BertForSequenceClassification"],
        **_SUPPORTED,
        **{key: getattr(bert, name) for name, key in _FIELDS.items()},
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "pad_token_id": 0,
        "dtype": "float32",
        **({"problem_type": problem_type} if problem_type else {}),
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # transformers refuses safetensors that do not say which framework they are for.
    weights = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    with atomic_write(directory / "model.safetensors", "wb") as file:
        file.write(weights)
    with atomic_write(directory / "config.json") as file:
        file.write(json.dumps(config, indent=2) + "\n")


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
    for path in _weight_files(name_or_directory):
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


def _weight_files(name_or_directory: str | os.PathLike[str]) -> list[Path]:
    """`model.safetensors`, or the shards that its index names.

    The former goes first, as in transformers: `save_pretrained` may have written it
    beside shards that were there before.
    """
    if path := find_file(name_or_directory, "model.safetensors"):
        return [path]
    filenames = ["model.safetensors"]
    if index := find_file(name_or_directory, "model.safetensors.index.json"):
        filenames = _shards(index)
    paths = []
    for filename in filenames:
        path = find_file(name_or_directory, filename)
        if path is None:
            raise UserError(
                f"{name_or_directory} has no {filename}; pickled weights "
                "(pytorch_model.bin) are not read, convert them with transformers "
                "(from_pretrained, then save_pretrained)"
            )
        paths.append(path)
    return paths


def _shards(index: Path) -> list[str]:
    """The files that an index names, all of them beside it."""
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(
            f"{index}: weight_map is {reprlib.repr(weight_map)}; expected an object, "
            "for each tensor the file that has it"
        )
    for name in weight_map.values():
        # The names of a checkpoint from elsewhere: they may lead nowhere else.
        if (
            not isinstance(name, str)
            or not name.isprintable()
            or not name.endswith(".safetensors")
            or PureWindowsPath(name).name != name
        ):
            raise UserError(
                f"{index}: weight_map names {reprlib.repr(name)}; expected the bare "
                "name of a .safetensors file in the same folder"
            )
    return sorted(set(weight_map.values()))


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
