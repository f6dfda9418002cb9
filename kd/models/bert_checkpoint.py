"""Weights of BERT, DistilBERT and RoBERTa in and out of the Hugging Face format.

See `kd.models.hub` for where a checkpoint lies.
"""

import dataclasses
import os
import typing
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from kd.errors import UserError
from kd.models import checkpoint, config_file, hub
from kd.models import tensors as tensor_files
from kd.models.bert import Bert, Variant
from kd.models.bert_tables import TABLES, Table
from kd.models.checkpoint import LEAVES, Pretrained
from kd.types import Params

Head = Literal["SequenceClassification", "MultipleChoice"]
"""What transformers calls what stands on a BERT. The tensors have the same names; of
choices there is one output, a number for each text, and logits are the numbers of an
example's choices."""

MODEL_TYPES: tuple[str, ...] = tuple(TABLES)
"""What config.json calls the architectures that a `Bert` is."""

_TYPES = typing.get_type_hints(Bert)
_PLAIN: dict[Variant, Bert] = {
    "bert": Bert(),
    "distilbert": Bert.distilbert(),
    "roberta": Bert.roberta_base(),
}
"""What a config.json without a key means."""


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
    variant = values.get("model_type", "bert")
    if not isinstance(variant, str) or variant not in TABLES:
        variant = "bert"  # Which is then refused.
    table = TABLES[cast(Variant, variant)]
    config_file.check_supported(path, values, table.supported)
    needed = (table.fields["width"], table.fields["num_layers"])
    missing = [key for key in needed if key not in values]
    if missing:
        raise UserError(
            f"{path} has no {missing[0]}; it must be a {table.classes}'s config.json"
        )
    fields: dict[str, Any] = {
        name: config_file.checked_field(path, key, values[key], _TYPES[name])
        for name, key in table.fields.items()
        if key in values
    }
    if values.get(table.head_dropout) is not None:
        rate = values[table.head_dropout]
        rate = config_file.checked_field(path, table.head_dropout, rate, float)
        fields["head_dropout"] = rate
    try:
        plain = _PLAIN[cast(Variant, variant)]
        if "max_length" in fields:
            fields["max_length"] -= plain.position_offset
        bert = dataclasses.replace(plain, **fields)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    labels = config_file.read_labels(path, values) or ("LABEL_0", "LABEL_1")
    # Of these transformers writes any number of labels, most often the default.
    choices = values.get("architectures") == [f"{table.classes}ForMultipleChoice"]
    return Config(bert, ("choice",) if choices and len(labels) != 1 else labels)


def load_pretrained(
    name_or_directory: str | os.PathLike[str],
    template: Params,
    variant: Variant = "bert",
) -> Pretrained:
    """Fills the parameters of a `Bert` from a checkpoint's safetensors.

    Reads what transformers saves from BertModel, BertForPreTraining,
    BertForMaskedLM, BertForSequenceClassification and BertForMultipleChoice, or those
    of a variant, of any float type. Where the checkpoint has more layers than the
    network, the first ones are taken.

    Args:
        name_or_directory: see `kd.models.hub.find_file`.
        template: freshly initialised parameters; give the expected shapes, and the
            values of a pooler or classifier that the checkpoint does not have. Where
            it is known to have both, `jax.eval_shape` of `Model.init` is enough.
        variant: of the network.

    Returns:
        Parameters in float32, and what was not loaded.

    Raises:
        UserError: there are no safetensors or they cannot be read, an encoder tensor
            is missing, or a tensor has another shape than its place in the network,
            is not of a float type, or holds a number that is not finite.
    """
    table = TABLES[variant]
    tensors = _read_tensors(name_or_directory, table.prefix)
    fresh: set[str] = set()
    read: set[str] = set()

    def fill(path: tuple[Any, ...], initial: Any) -> Any:
        keys = tuple(entry.key for entry in path)
        name = _tensor_name(keys, table)
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
        ValueError: there are more or fewer labels than logits, or transformers has
            no such head.
    """
    num_classes = params["classifier"]["bias"].shape[0]
    labels = labels or [f"LABEL_{i}" for i in range(num_classes)]
    if len(labels) != num_classes:
        raise ValueError(f"{len(labels)} labels for {num_classes} classes")
    table = TABLES[bert.variant]
    if bert.variant == "roberta" and head == "MultipleChoice":
        raise ValueError(
            "transformers' RoBERTa of choices has another head; a BERT's is supported"
        )
    tensors = {}
    for path, value in jax.tree.leaves_with_path(params):
        keys = tuple(entry.key for entry in path)
        prefix = "" if keys[0] in table.head else table.prefix
        array = np.asarray(value, np.float32)
        # [in, out] in Linen and [out, in] in torch: the only ones transposed.
        array = array.T if keys[-1] == "kernel" else array
        tensors[prefix + _tensor_name(keys, table)] = np.ascontiguousarray(array)
    sizes = {key: getattr(bert, name) for name, key in table.fields.items()}
    sizes[table.fields["max_length"]] += bert.position_offset
    rate = {} if bert.head_dropout is None else {table.head_dropout: bert.head_dropout}
    if bert.variant == "distilbert" and not rate:
        rate = {table.head_dropout: bert.dropout}  # Without it 0.2 is meant.
    config = {
        "architectures": [f"{table.classes}For{head}"],
        "pad_token_id": 0,
        **table.supported,
        **sizes,
        **rate,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "dtype": "float32",
        **_problem(head, problem_type),
    }
    checkpoint.put(directory, config, tensors)


def _problem(head: Head, problem_type: str) -> dict[str, str]:
    told = problem_type and head == "SequenceClassification"
    return {"problem_type": problem_type} if told else {}


def _tensor_name(keys: tuple[str, ...], table: Table) -> str:
    """The name without a prefix of the parameter at `keys`, a path in our tree."""
    *module, leaf = keys if keys[-1] in LEAVES else (*keys, "")
    path, index = "/".join(module), ""
    if path.startswith("layer_"):
        index, _, rest = path.removeprefix("layer_").partition("/")
        path = "layer_{i}/" + rest
    return f"{table.modules[path].format(i=index)}.{LEAVES[leaf]}"


def _read_tensors(
    name_or_directory: str | os.PathLike[str], prefix: str
) -> dict[str, np.ndarray]:
    """All weights of a checkpoint, under the names that BertModel gives them now."""
    weights: dict[str, np.ndarray] = {}
    for path in hub.find_weights(name_or_directory):
        for old_name, tensor in tensor_files.read(path).items():
            name = (
                old_name.removeprefix(prefix)
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
