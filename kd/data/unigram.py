"""Unigram tokenizers, those of SentencePiece: loaded from a checkpoint, saved as one.

Those of T5 and its kin. A text is cut into pieces ("▁" is a space) so that the sum of
their scores, log-probabilities, is the largest there is. What no piece covers is the
unknown token.

A checkpoint holds `tokenizer.json`, which says everything.

Source: kudo2018subword.
"""

import json
import pathlib
import reprlib
from typing import Any

import tokenizers

from kd.atomic import atomic_write
from kd.data.files import quoted
from kd.errors import UserError
from kd.models import gguf_file, hub

END = "</s>"
"""What texts end with in the vocabularies of T5."""
_PADDING = "<pad>"


def is_in(name: str | pathlib.Path) -> bool:
    """Whether a checkpoint's tokenizer is of this kind.

    Args:
        name: directory, GGUF file, or hub name.

    Raises:
        UserError: its `tokenizer.json` is not JSON.
    """
    if gguf_file.find(name) is not None:
        return False
    path = hub.find_file(name, "tokenizer.json")
    if path is None:
        return False
    return _kind(hub.read_object(path)) == "Unigram"


def load(name: str | pathlib.Path) -> tokenizers.Tokenizer:
    """The tokenizer of a checkpoint, from `tokenizer.json`.

    It gives the ids that transformers gives, without padding or cutting texts.

    Args:
        name: directory or hub name.

    Raises:
        UserError: there is none, the file is damaged, or it is of another kind.
    """
    path = hub.find_file(name, "tokenizer.json")
    if path is None:
        hint = ""
        if hub.find_file(name, "spiece.model") is not None:
            hint = (
                "; spiece.model is not read, convert it with transformers "
                "(AutoTokenizer.from_pretrained, then save_pretrained)"
            )
        raise UserError(f"{name}: no tokenizer there; expected tokenizer.json{hint}")
    description = hub.read_object(path)
    kind = _kind(description)
    if kind != "Unigram":
        raise UserError(
            f'{path}: expected a "model" of the type "Unigram", got the type '
            f"{json.dumps(kind)[:80]}"
        )
    _check(path, description["model"])
    # Padding and cutting are ours, whatever was saved.
    description |= {"padding": None, "truncation": None}
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(description))
    except Exception as error:  # nothing narrower is raised
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a tokenizer: {reason[:200]}") from error


def save(
    tokenizer: tokenizers.Tokenizer,
    directory: pathlib.Path,
    *,
    end: str | None = END,
    max_length: int | None = None,
) -> None:
    """Writes what AutoTokenizer of transformers reads, with the same ids.

    Args:
        tokenizer: from `load`.
        directory: created if need be; `tokenizer.json` and `tokenizer_config.json` in
            it are replaced, each in one step.
        end: the token that ends a text.
        max_length: number of tokens that transformers cuts longer texts to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if end is not None:
        if tokenizer.token_to_id(end) is None:
            raise ValueError(f"the vocabulary lacks {quoted([end])}")
        padded = tokenizer.token_to_id(_PADDING) is not None
        config |= {"eos_token": end, "pad_token": _PADDING if padded else end}
    if max_length is not None:
        config["model_max_length"] = max_length
    with atomic_write(directory / "tokenizer.json") as file:
        file.write(tokenizer.to_str())
    with atomic_write(directory / "tokenizer_config.json") as file:
        file.write(json.dumps(config, indent=2) + "\n")


def _kind(description: dict[str, Any]) -> Any:
    """The type of a tokenizer.json's model."""
    model = description.get("model")
    return model.get("type") if isinstance(model, dict) else None


def _check(path: pathlib.Path, model: dict[str, Any]) -> None:
    """Refuses what the library may crash at."""
    pieces, unknown = model.get("vocab"), model.get("unk_id")
    if not isinstance(pieces, list) or not pieces:
        raise UserError(
            f"{path}: vocab is {reprlib.repr(pieces)}; expected a list of pieces with "
            "their scores"
        )
    seen = set()
    for i, entry in enumerate(pieces):
        if (
            not isinstance(entry, list)
            or len(entry) != 2
            or not isinstance(entry[0], str)
            or type(entry[1]) not in (int, float)
        ):
            raise UserError(
                f"{path}: entry {i} of vocab is {reprlib.repr(entry)}; expected a "
                "piece and its score"
            )
        if entry[0] in seen:
            raise UserError(f"{path}: vocab has {quoted([entry[0]])} twice")
        seen.add(entry[0])
    if unknown is not None and (
        type(unknown) is not int or not 0 <= unknown < len(pieces)
    ):
        raise UserError(
            f"{path}: unk_id is {reprlib.repr(unknown)}; expected a number from 0 to "
            f"{len(pieces) - 1}"
        )
