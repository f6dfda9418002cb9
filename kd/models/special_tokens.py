"""The ids of tokens that begin, end and pad texts, as a checkpoint has them."""

import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kd.errors import UserError
from kd.models import gguf_file, hub

_KEYS = {"begin": "bos_token_id", "end": "eos_token_id", "padding": "pad_token_id"}
# The former is for generation, and more exact: an end of a turn is in it.
_FILES = ("generation_config.json", "config.json")


class SpecialTokens(NamedTuple):
    """Ids of tokens with a meaning of their own."""

    begin: int | None = None
    """Of what a text begins with, if with anything."""
    end: tuple[int, ...] = ()
    """Of those that end a text."""
    padding: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As config.json has them."""
        ends = list(self.end) if len(self.end) > 1 else next(iter(self.end), None)
        return {
            _KEYS["begin"]: self.begin,
            _KEYS["end"]: ends,
            _KEYS["padding"]: self.padding,
        }


NO_SPECIAL_TOKENS = SpecialTokens()


def read_special_tokens(name_or_directory: str | os.PathLike[str]) -> SpecialTokens:
    """What a checkpoint's `generation_config.json` says, or its `config.json`.

    Or, of a GGUF file, its metadata.

    Raises:
        UserError: an id is none.
    """
    if (file := gguf_file.find(name_or_directory)) is not None:
        return of_metadata(file, gguf_file.read_metadata(file))
    found: dict[str, Any] = {}
    for filename in _FILES:
        path = hub.find_file(name_or_directory, filename)
        values = {} if path is None else hub.read_object(path)
        for name, key in _KEYS.items():
            if name not in found and path is not None and values.get(key) is not None:
                found[name] = _checked(path, key, values[key], many=name == "end")
    return SpecialTokens(**found)


def of_metadata(path: Path, values: Mapping[str, Any]) -> SpecialTokens:
    """What the metadata of a GGUF file say, where `add_bos_token` asks for a begin.

    Raises:
        UserError: an id is none.
    """
    found = {}
    for name, key in {**_KEYS, "padding": "padding_token_id"}.items():
        key = f"tokenizer.ggml.{key}"
        if key in values:
            found[name] = _checked(path, key, values[key], many=name == "end")
    if not values.get("tokenizer.ggml.add_bos_token"):
        found.pop("begin", None)
    return SpecialTokens(**found)


def _checked(path: Path, key: str, value: Any, *, many: bool) -> Any:
    ids = value if many and isinstance(value, list) else [value]
    # Some files say -1 where there is none.
    ids = [i for i in ids if i != -1]
    if any(type(i) is not int or i < 0 for i in ids):
        raise UserError(
            f"{path}: {key} is {reprlib.repr(value)}; expected the id of a token"
        )
    return tuple(ids) if many else next(iter(ids), None)
