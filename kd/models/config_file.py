"""What a `config.json` says, each value checked before it is believed."""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd.errors import UserError

_LARGEST = 2**24
"""Of any size in a config.json; past every network that fits a machine, and short of
what overflows."""
_MOST_LAYERS = 1024
_LAYERS = (
    *("num_hidden_layers", "num_blocks", "n_layer", "block_count"),
    *("num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers"),
)


def check_supported(
    path: Path, values: Mapping[str, Any], supported: Mapping[str, Any]
) -> None:
    """Refuses what a network does not compute, by name.

    Args:
        path: of the file, for the message.
        values: what it says.
        supported: by key, the only value there may be; a missing key means the same.

    Raises:
        UserError: there is another one.
    """
    for key, only in supported.items():
        if values.get(key, only) != only:
            raise UserError(
                f"{path}: {key} is {reprlib.repr(values[key])}; only {only!r} is "
                "supported"
            )


def required(path: Path, values: Mapping[str, Any], key: str) -> Any:
    """The value of a key that must be there.

    Raises:
        UserError: it is not.
    """
    if key not in values:
        raise UserError(f"{path} has no {key}")
    return values[key]


def checked_field(path: Path, key: str, value: Any, kind: Any) -> Any:
    """A size or rate of a network as its record has it.

    Args:
        path: of the file that holds it, for the message.
        key: its name there.
        value: as JSON has it.
        kind: the type of the record's field, one of int, float, bool, int | None and
            tuple[int, ...].

    Raises:
        UserError: the value is of another type, or of no use as a size.
    """
    # A bool is an int to Python, and 16.0 equals 16: the types must be the same.
    found = reprlib.repr(value)
    if kind == (int | None):
        return None if value is None else checked_field(path, key, value, int)
    if kind is float:
        # JSON has integers that no float holds, and Python reads NaN and Infinity.
        if type(value) not in (int, float) or not -_LARGEST <= value <= _LARGEST:
            raise UserError(f"{path}: {key} is {found}; expected a small number")
        return value
    if kind is bool:
        if type(value) is not bool:
            raise UserError(f"{path}: {key} is {found}; expected true or false")
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


def checked_fields(
    path: Path,
    values: Mapping[str, Any],
    keys: Mapping[str, str],
    kinds: Mapping[str, Any],
) -> dict[str, Any]:
    """Fields of an architecture: the required values of their keys, of their kinds."""
    return {
        name: checked_field(path, key, required(path, values, key), kinds[name])
        for name, key in keys.items()
    }


def checked_id(path: Path, key: str, value: Any) -> int:
    """The id of a token.

    Raises:
        UserError: it is none.
    """
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise UserError(
            f"{path}: {key} is {reprlib.repr(value)}; expected the id of a token"
        )
    return value


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
        if label.splitlines() not in ([label], []):
            raise UserError(
                f"{path}: id2label gives {reprlib.repr(label)} to {i}; expected a name "
                "of one line"
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
