"""Byte-level BPE tokenizers: trained, loaded from a checkpoint, saved as one.

Those of GPT-2, Llama 3, Qwen and SmolLM2. A text is bytes, each written as a printable
character ("Ġ" is a space), and merged pair by pair, so that no text is unknown.

A checkpoint holds `tokenizer.json`, which says everything, or is a GGUF file, whose
metadata have tokens and merges.

Source: radford2019language; merges sennrich2016neural.
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from kd.atomic import atomic_write
from kd.data.files import quoted
from kd.errors import UserError
from kd.models import gguf_file, hub, special_tokens

END = "<|endoftext|>"
"""What texts end with in a vocabulary that is trained here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByteBPE:
    """A byte-level BPE tokenizer.

    Attributes:
        vocabulary: directory or hub name of a checkpoint with `tokenizer.json`, or a
            GGUF file; empty to train one on the training split.
        size: number of entries of a trained vocabulary at most, 257 at least.
    """

    vocabulary: str = ""
    size: int = 8192

    def build(self, texts: list[str]) -> tokenizers.Tokenizer:
        """Loads it, or trains it on texts; the same input gives the same one."""
        if self.vocabulary:
            return load(self.vocabulary)
        return train(texts, size=self.size)


def train(texts: list[str], *, size: int) -> tokenizers.Tokenizer:
    """Learns a vocabulary of at most `size` entries; `END` is token 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if size <= len(alphabet):
        raise ValueError(f"size is {size}, must be more than the {len(alphabet)} bytes")
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load(name: str | pathlib.Path) -> tokenizers.Tokenizer:
    """The tokenizer of a checkpoint, from `tokenizer.json` or a GGUF file.

    It gives the ids that transformers gives, without padding or cutting texts.

    Args:
        name: directory, GGUF file, or hub name.

    Raises:
        UserError: there is none, a file is damaged, or it is of another kind.
    """
    if (file := gguf_file.find(name)) is not None:
        return _from_metadata(file, gguf_file.read_metadata(file))
    path = hub.find_file(name, "tokenizer.json")
    if path is None:
        raise UserError(f"{name}: no tokenizer there; expected tokenizer.json")
    description = hub.read_object(path)
    model = description.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if kind != "BPE" or not _is_byte_level(description.get("decoder")):
        raise UserError(
            f'{path}: expected a "model" of the type "BPE" and a "decoder" of the type '
            f'"ByteLevel", got the model {json.dumps(kind)[:80]}'
        )
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
        tokenizer: from `load` or `train`.
        directory: created if need be; `tokenizer.json` and `tokenizer_config.json` in
            it are replaced, each in one step.
        end: the token that ends a text; also used for padding there.
        max_length: number of tokens that transformers cuts longer texts to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if end is not None:
        if tokenizer.token_to_id(end) is None:
            raise ValueError(f"the vocabulary lacks {quoted([end])}")
        config |= {"eos_token": end, "pad_token": end}
    if max_length is not None:
        config["model_max_length"] = max_length
    with atomic_write(directory / "tokenizer.json") as file:
        file.write(tokenizer.to_str())
    with atomic_write(directory / "tokenizer_config.json") as file:
        file.write(json.dumps(config, indent=2) + "\n")


def end_token(tokenizer: tokenizers.Tokenizer, place: str | pathlib.Path) -> int:
    """The token that stands between texts, in the vocabulary of a checkpoint.

    What the tokenizer ends a text with, if it does; else `END` where there is one, as
    in pretraining; else what the checkpoint's generation ends with.

    Raises:
        UserError: none is known.
    """
    last = tokenizer.encode("a").ids[-1:]
    known = tokenizer.get_added_tokens_decoder()
    if last and last[0] in known and known[last[0]].special:
        return last[0]
    found = tokenizer.token_to_id(END)
    if found is None:
        found = next(iter(special_tokens.read_special_tokens(place).end), None)
    if found is None and (path := hub.find_file(place, "tokenizer_config.json")):
        told = hub.read_object(path).get("eos_token")
        told = told.get("content") if isinstance(told, dict) else told
        found = tokenizer.token_to_id(told) if isinstance(told, str) else None
    if found is None or tokenizer.id_to_token(found) is None:
        raise UserError(
            f"{place}: no token ends a text; expected {END!r} in its vocabulary, or an "
            "eos_token_id in its config.json"
        )
    return found


def bytes_of_tokens(tokenizer: tokenizers.Tokenizer) -> Int[np.ndarray, "v"]:
    """How many bytes of text each token is, 0 for special ones."""
    sizes = np.zeros(num_ids(tokenizer), np.int32)
    # In its alphabet a byte is a character; elsewhere a text is itself, but for spaces.
    of_bytes = not isinstance(tokenizer.model, models.Unigram)
    added = tokenizer.get_added_tokens_decoder()
    for token, i in tokenizer.get_vocab().items():
        if i in added:
            sizes[i] = len(added[i].content.encode())
        else:
            sizes[i] = len(token if of_bytes else token.replace("▁", " ").encode())
    for i, token in added.items():
        if token.special:
            sizes[i] = 0
    return sizes


def encode(
    tokenizer: tokenizers.Tokenizer, texts: list[str]
) -> list[Int[np.ndarray, "_"]]:
    """The ids of texts, without what would begin or end them.

    What looks like a special token in a text is text.
    """
    plain = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    plain.encode_special_tokens = True
    found = plain.encode_batch_fast(texts, add_special_tokens=False)
    return [np.asarray(one.ids, np.int32) for one in found]


def num_ids(tokenizer: tokenizers.Tokenizer) -> int:
    """One more than the largest id that a text can have."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def _is_byte_level(decoder: Any) -> bool:
    """Whether what it gives is bytes written as characters."""
    if not isinstance(decoder, dict):
        return False
    parts = decoder.get("decoders")
    if isinstance(parts, list):
        return any(map(_is_byte_level, parts))
    return decoder.get("type") == "ByteLevel"


# --- GGUF ---

_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Into what a pattern finds, then into bytes."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How llama.cpp calls the way in which a text is cut before it is merged.
_CUTS = {
    "gpt-2": _GPT2,
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), _GPT2]
    ),
    "llama-bpe": _split(_WORDS.format(digits=r"\p{N}{1,3}")),
    "qwen2": _split(_WORDS.format(digits=r"\p{N}")),
}
_CONTROL, _USER_DEFINED = 3, 4
"""Types of tokens that are found in a text before it is cut."""


def _from_metadata(path: pathlib.Path, values: dict[str, Any]) -> tokenizers.Tokenizer:
    found = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in values.items()
        if key.startswith("tokenizer.ggml.")
    }
    if found.get("model") != "gpt2":
        raise UserError(
            f"{path}: its tokenizer is {str(found.get('model'))[:80]!r}; only 'gpt2', "
            "byte-level BPE, is supported"
        )
    cut = found.get("pre", "gpt-2")
    if cut not in _CUTS:
        raise UserError(
            f"{path}: its tokenizer cuts texts as {str(cut)[:80]!r}; only "
            f"{', '.join(_CUTS)} are supported"
        )
    tokens, merges, kinds = (
        found.get(key) for key in ("tokens", "merges", "token_type")
    )
    if not tokens or merges is None or kinds is None or len(kinds) != len(tokens):
        raise UserError(
            f"{path}: its tokenizer lacks tokens, merges or the type of each token"
        )
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        raise UserError(f"{path}: its tokenizer has a token twice")
    try:
        model = models.BPE(
            vocabulary,
            [tuple(merge.split(" ")) for merge in merges],
            ignore_merges=cut == "llama-bpe",
        )
    except Exception as error:  # nothing narrower is raised
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: its tokenizer is damaged: {reason[:200]}") from error
    tokenizer = tokenizers.Tokenizer(model)
    if cut == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _CUTS[cut]
    tokenizer.decoder = decoders.ByteLevel()
    for kind, add in (
        (_CONTROL, tokenizer.add_special_tokens),
        (_USER_DEFINED, tokenizer.add_tokens),
    ):
        add(
            [
                tokenizers.AddedToken(token, normalized=False)
                for token, own in zip(tokens, kinds, strict=True)
                if own == kind
            ]
        )
    begin = special_tokens.of_metadata(path, values).begin
    if begin is not None:
        if begin >= len(tokens):
            raise UserError(
                f"{path}: texts begin with token {begin}, and there is none"
            )
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{tokens[begin]} $A", special_tokens=[(tokens[begin], begin)]
        )
    return tokenizer
