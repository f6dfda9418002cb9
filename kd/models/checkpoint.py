"""Checkpoints in the format of Hugging Face: a table of names, safetensors in and out.

See `kd.models.hub` for where a checkpoint lies.
"""

import json
import os
import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from kd.atomic import atomic_write
from kd.errors import UserError
from kd.models import hub
from kd.models import tensors as tensor_files
from kd.types import Params

LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight", "": "weight"}
"""What a parameter is called there. A scale is a norm's; "" is a parameter that is no
module's, such as a table."""
_LAYER = re.compile(r"\blayer_(?P<index>\d+)/")


class Pretrained(NamedTuple):
    """Parameters from a checkpoint, and what did not match up."""

    params: Params
    fresh: tuple[str, ...]
    """Modules that the checkpoint lacks and that kept their initial values."""
    unread: tuple[str, ...]
    """Tensors of the checkpoint that the network has no place for."""


class Table(NamedTuple):
    """What the parameters of a language model are called in a checkpoint."""

    modules: Mapping[str, str]
    """By our path to a module, with "{i}" for the number of a layer, its name there."""
    prefix: str
    """What names begin with, but not where the model was saved without its head."""
    transposed: bool = True
    """Whether a kernel is [out, in] there; here it is [in, out]."""
    copies: tuple[str, ...] = ()
    """Names under which the embeddings may be there again, or instead."""
    buffers: Mapping[str, str] = {}
    """By our path, the whole name of what is no module's weight; 0 if it is absent."""

    def name(self, path: tuple[Any, ...]) -> str:
        """The tensor of the parameter at a path in the tree."""
        keys = tuple(entry.key for entry in path)
        if (buffer := self.buffers.get("/".join(keys))) is not None:
            return buffer
        *module, leaf = keys if keys[-1] in LEAVES else (*keys, "")
        place, index = "/".join(module), ""
        if layer := _LAYER.search(place):
            index = layer["index"]
            place = _LAYER.sub("layer_{i}/", place)
        return f"{self.modules[place].format(i=index)}.{LEAVES[leaf]}"

    @property
    def token_rows(self) -> tuple[str, ...]:
        """The tensors with a row for each token: embeddings and head."""
        return tuple(f"{self.modules[name]}.weight" for name in ("embeddings", "head"))

    def copies_in(self, names: Container[str]) -> tuple[str, ...]:
        """What embeddings are called besides, in a network with parameters so named."""
        head = self.token_rows[1]
        return self.copies if head in names else (*self.copies, head)


def read(name_or_directory: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All weights of a checkpoint in one file or in shards, in float32.

    Raises:
        UserError: there are no safetensors, one is missing or cannot be read, or a
            tensor is in two of them.
    """
    weights: dict[str, np.ndarray] = {}
    for path in hub.find_weights(name_or_directory):
        for name, tensor in tensor_files.read(path).items():
            if name in weights:
                raise _twice(path, name)
            weights[name] = tensor
    return weights


def load_pretrained(
    name_or_directory: str | os.PathLike[str], template: Params, table: Table
) -> Pretrained:
    """Fills the parameters of a language model from a checkpoint's safetensors.

    Args:
        name_or_directory: see `kd.models.hub.find_file`.
        template: the parameters, or their shapes.
        table: the names.

    Returns:
        Parameters in float32, and rows of padding that were left out.

    Raises:
        UserError: there are no safetensors or they cannot be read, or tensors are
            missing, of another shape, of no float type, not finite, or for nothing.
    """
    return fill(name_or_directory, read(name_or_directory), template, table)


def fill(
    source: object, tensors: dict[str, np.ndarray], template: Params, table: Table
) -> Pretrained:
    """Puts tensors where the parameters of a language model are.

    Rows of embeddings and head beyond the network's vocabulary are padding and left
    out. A head beside tied embeddings must equal these, and so must their copies.

    Args:
        source: where the tensors come from, for messages.
        tensors: by their names there; emptied, to save memory.
        template: the parameters, or their shapes.
        table: the names.

    Returns:
        Parameters in float32, and the padding that was left out.

    Raises:
        UserError: tensors are missing, of another shape, or nothing takes them; the
            message has all of them.
    """
    shapes = {
        table.name(path): _stored(path, leaf.shape, table)
        for path, leaf in jax.tree.leaves_with_path(template)
    }
    copies = table.copies_in(shapes)
    for name in [name for name in tensors if name not in shapes]:
        if table.prefix and (full := table.prefix + name) in (*shapes, *copies):
            if full in tensors:
                raise _twice(source, name)
            tensors[full] = tensors.pop(name)
    embeddings = table.token_rows[0]
    for name in copies:
        if embeddings not in tensors and name in tensors:
            tensors[embeddings] = tensors.pop(name)
    for name in table.buffers.values():
        if name in shapes:
            tensors.setdefault(name, np.zeros(shapes[name], np.float32))
    unread = []
    for name in table.token_rows:
        tensor, shape = tensors.get(name), shapes.get(name)
        if tensor is None or shape is None or tensor.ndim != 2:
            continue
        if tensor.shape[1] == shape[1] and len(tensor) > shape[0]:
            unread.append(f"{name}[{shape[0]}:]")
            tensors[name] = tensor[: shape[0]]
    _drop_copies(source, tensors, embeddings, copies)
    problems = [
        _listed("it lacks", (name for name in shapes if name not in tensors)),
        _listed("nothing takes", (name for name in tensors if name not in shapes)),
        *(
            f"{name} is {list(tensors[name].shape)}, expected {list(shape)}"
            for name, shape in shapes.items()
            if name in tensors and tensors[name].shape != shape
        ),
    ]
    if any(problems):
        raise UserError(
            f"{source}: its weights do not fit the network: "
            f"{'; '.join(filter(None, problems))}"
        )

    def take(path: tuple[Any, ...], _: Any) -> jax.Array:
        tensor = tensors.pop(table.name(path))
        return jnp.asarray(_turned(path, tensor, table), jnp.float32)

    params = jax.tree.map_with_path(take, template)
    return Pretrained(params, fresh=(), unread=tuple(unread))


def write(
    directory: str | os.PathLike[str],
    config: Mapping[str, Any],
    params: Params,
    table: Table,
) -> None:
    """Writes `model.safetensors` and `config.json`, each in one step.

    Args:
        directory: created if need be.
        config: as transformers has it.
        params: saved in float32.
        table: the names.
    """
    tensors = {}
    for path, value in jax.tree.leaves_with_path(params):
        array = _turned(path, np.asarray(value, np.float32), table)
        tensors[table.name(path)] = np.ascontiguousarray(array)
    put(directory, config, tensors)


def put(
    directory: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
) -> None:
    """Writes tensors by their names in the checkpoint, and `config.json`, likewise."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # transformers refuses safetensors that do not say which framework they are for.
    weights = safetensors.numpy.save(dict(tensors), metadata={"format": "pt"})
    with atomic_write(directory / "model.safetensors", "wb") as file:
        file.write(weights)
    with atomic_write(directory / "config.json") as file:
        file.write(json.dumps(config, indent=2) + "\n")


def _drop_copies(
    source: object,
    tensors: dict[str, np.ndarray],
    embeddings: str,
    copies: Iterable[str],
) -> None:
    """Some files hold tied embeddings more than once."""
    for name in copies:
        if name not in tensors or embeddings not in tensors:
            continue
        num_rows = len(tensors[embeddings])
        if not np.array_equal(tensors.pop(name)[:num_rows], tensors[embeddings]):
            raise UserError(
                f"{source}: {name} is not {embeddings}, though its config ties them; "
                "with a tie_word_embeddings of false both are read"
            )


def _stored(
    path: tuple[Any, ...], shape: tuple[int, ...], table: Table
) -> tuple[int, ...]:
    return shape[::-1] if _is_turned(path, table) else shape


def _turned(path: tuple[Any, ...], tensor: np.ndarray, table: Table) -> np.ndarray:
    return tensor.T if _is_turned(path, table) else tensor


def _is_turned(path: tuple[Any, ...], table: Table) -> bool:
    return table.transposed and path[-1].key == "kernel"


def _listed(what: str, names: Iterable[str]) -> str:
    shown = ", ".join(map(tensor_files.shown, sorted(names)))
    return f"{what} {shown}" if shown else ""


def _twice(source: object, name: str) -> UserError:
    # Which of two is meant, nobody can say.
    return UserError(
        f"{source}: {tensor_files.shown(name)} is in the checkpoint twice, in two "
        "files or with a prefix and without; once is right"
    )
