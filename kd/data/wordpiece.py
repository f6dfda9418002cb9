"""WordPiece tokenizers: trained, loaded from a checkpoint, saved as one.

A `WordPiece` says which tokenizer an experiment wants; `build` makes the real one,
from a checkpoint's vocabulary where one is named, else trained on the training split.

A checkpoint holds `vocab.txt`, whose line i is token i; `tokenizer_config.json`, which
says what happens to case, accents and Chinese characters; and `tokenizer.json`, which
says everything. What is read here gives the ids that transformers gives, or is refused.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import WordPieceTrainer

from kd.atomic import atomic_write
from kd.data.files import quoted
from kd.errors import UserError
from kd.models import hub

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Key of tokenizer_config.json, field of the normalizer.
_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordPiece:
    """The tokenizer of BERT (wu2016wordpiece, devlin2019bert).

    Attributes:
        vocabulary: directory or hub name of a checkpoint with `vocab.txt`; empty
            to train one on the training split.
        size: largest number of entries of a trained vocabulary.
        lowercase: fold case and strip accents, unless the checkpoint says what to do.
    """

    vocabulary: str = ""
    size: int = 8192
    lowercase: bool = True

    def build(self, texts: list[str]) -> tokenizers.Tokenizer:
        """Loads it, or trains it on texts; the same input gives the same one."""
        if self.vocabulary:
            return load(self.vocabulary, lowercase=self.lowercase)
        return train(texts, size=self.size, lowercase=self.lowercase)


def train(texts: list[str], *, size: int, lowercase: bool) -> tokenizers.Tokenizer:
    """Learns a vocabulary of at most `size` entries.

    The library numbers the continuations of words ("##a") in the order of a randomly
    seeded hash table and breaks ties between equally frequent pairs by these numbers,
    so that two trainings differ. Listing all characters first, sorted, fixes both.
    """
    learner = _bert(models.WordPiece(unk_token="[UNK]"), lowercase=lowercase)
    characters = sorted(
        {c for text in texts for c in learner.normalizer.normalize_str(text)} - {" "}
    )
    continuations = [f"##{character}" for character in characters]
    trainer = WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*_SPECIAL_TOKENS, *characters, *continuations],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    # In a tokenizer made anew the characters are ordinary entries.
    vocabulary = learner.get_vocab()
    model = models.WordPiece(vocabulary, unk_token="[UNK]")
    return _with_sentence_template(_bert(model, lowercase=lowercase))


def load(name: str | pathlib.Path, *, lowercase: bool) -> tokenizers.Tokenizer:
    """The tokenizer of a checkpoint, from its `tokenizer.json` or `vocab.txt`.

    Args:
        name: directory or hub name.
        lowercase: for a `vocab.txt` without `tokenizer_config.json`; otherwise the
            checkpoint says it, and where it says nothing BERT's tokenizer folds case.

    Raises:
        UserError: there is none; a file is damaged; the ids are not 0, 1, …; or two
            files contradict each other.
    """
    config = _find(name, "tokenizer_config.json")
    told = {} if config is None else _told(config)
    if (path := _find(name, "tokenizer.json")) is not None:
        tokenizer = _described(path)
        done = _done(tokenizer)
        meant = _resolved({"do_lower_case": done["do_lower_case"]} | told)
        for key, value in done.items():
            if meant.get(key, value) != value:
                raise UserError(
                    f"{config}: {key} is {json.dumps(told[key])}, but the tokenizer of "
                    f"{path} has {json.dumps(value)}; they must agree"
                )
    elif (path := _find(name, "vocab.txt")) is not None:
        settings = {_SETTINGS[key]: value for key, value in told.items()}
        if config is None:
            settings["lowercase"] = lowercase
        model = models.WordPiece(_lines(path), unk_token="[UNK]")
        tokenizer = _bert(model, **settings)
    else:
        raise UserError(
            f"{name}: no tokenizer there; expected vocab.txt or tokenizer.json"
        )
    missing = [t for t in _SPECIAL_TOKENS[:4] if tokenizer.token_to_id(t) is None]
    if missing:
        raise UserError(f"{name}: the vocabulary lacks {', '.join(missing)}")
    return _with_sentence_template(tokenizer)


def save(
    tokenizer: tokenizers.Tokenizer,
    directory: pathlib.Path,
    *,
    max_length: int | None = None,
) -> None:
    """Writes what AutoTokenizer of transformers reads, with the same ids.

    Args:
        tokenizer: from `load` or `train`.
        directory: created if need be; `vocab.txt`, `tokenizer_config.json` and
            `tokenizer.json` in it are replaced, each in one step.
        max_length: number of tokens that transformers cuts longer texts to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = tokenizer.get_vocab()
    normalizer = tokenizer.normalizer
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if _is_bert(tokenizer):
        config = {"tokenizer_class": "BertTokenizer"} | {
            key: getattr(normalizer, field) for key, field in _SETTINGS.items()
        }
    # null for what is not in the vocabulary; transformers would add it, beyond the
    # embeddings.
    config |= {
        f"{token.strip('[]').lower()}_token": token if token in vocabulary else None
        for token in _SPECIAL_TOKENS
    }
    if max_length is not None:
        config["model_max_length"] = max_length
    with atomic_write(directory / "vocab.txt") as file:
        file.writelines(
            f"{t}\n" for t in sorted(vocabulary, key=vocabulary.__getitem__)
        )
    with atomic_write(directory / "tokenizer_config.json") as file:
        file.write(json.dumps(config, indent=2) + "\n")
    # Last, because `load` goes by it.
    with atomic_write(directory / "tokenizer.json") as file:
        file.write(tokenizer.to_str(pretty=True))


def fingerprint(tokenizer: tokenizers.Tokenizer) -> str:
    """SHA-256 of everything that the tokenizer does."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


def _bert(
    model: models.WordPiece,
    *,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    handle_chinese_chars: bool = True,
) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase,
        strip_accents=strip_accents,
        handle_chinese_chars=handle_chinese_chars,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _with_special_tokens(tokenizer)


def _with_special_tokens(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """As with the published vocabularies, "[SEP]" in a text means the separator."""
    told = {
        str(token.content) for token in tokenizer.get_added_tokens_decoder().values()
    }
    vocabulary = tokenizer.get_vocab()
    tokenizer.add_special_tokens(
        [t for t in _SPECIAL_TOKENS if t in vocabulary and t not in told]
    )
    return tokenizer


def _with_sentence_template(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _is_bert(tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether the vocabulary and `_SETTINGS` say all that it does to a text."""
    model, plain = tokenizer.model, models.WordPiece(unk_token="[UNK]")
    return (
        isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
        and tokenizer.normalizer.clean_text
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and all(
            getattr(model, field) == getattr(plain, field)
            for field in (
                *("unk_token", "continuing_subword_prefix"),
                "max_input_chars_per_word",
            )
        )
    )


def _done(tokenizer: tokenizers.Tokenizer) -> dict[str, bool]:
    """What a tokenizer does to a text, as far as that can be asked, by `_SETTINGS`."""
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        lowercase = normalizer is not None and normalizer.normalize_str("A") == "a"
        return {"do_lower_case": lowercase}
    return _resolved({k: getattr(normalizer, f) for k, f in _SETTINGS.items()})


def _resolved(told: dict[str, Any]) -> dict[str, Any]:
    """With a strip_accents of null as it is meant: as do_lower_case."""
    if "strip_accents" in told and told["strip_accents"] is None:
        return told | {"strip_accents": told.get("do_lower_case", True)}
    return told


def _told(path: pathlib.Path) -> dict[str, Any]:
    """Those of `_SETTINGS` that a tokenizer_config.json has."""
    config = hub.read_object(path)
    told = {key: config[key] for key in _SETTINGS if key in config}
    for key, value in _resolved(told).items():
        if not isinstance(value, bool):
            raise UserError(
                f"{path}: {key} is {json.dumps(value)[:80]}; expected true or false"
            )
    return told


def _find(name: str | pathlib.Path, filename: str) -> pathlib.Path | None:
    """One file of a checkpoint, or None if nothing of that name is there."""
    path = hub.find_file(name, filename)
    place = pathlib.Path(name).expanduser() / filename
    if path is None and os.path.lexists(place):
        raise UserError(f"{place} is not a file; expected one, or nothing of that name")
    return path


def _lines(path: pathlib.Path) -> dict[str, int]:
    """The ids of the tokens of a vocab.txt; nothing is stripped, a blank one is ""."""
    tokens = re.split(r"\r\n|\r|\n", hub.read_text(path))
    if not tokens[-1]:
        tokens.pop()
    ids: dict[str, int] = {}
    for i, token in enumerate(tokens):
        if (first := ids.setdefault(token, i)) != i:
            raise UserError(
                f"{path}:{i + 1}: the token {quoted([token])} is that of line "
                f"{first + 1}; every line must be another token"
            )
    return ids


def _described(path: pathlib.Path) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json."""
    description = hub.read_object(path)
    model = description.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    # The first published ones do not name the type.
    kind = model.get("type", "WordPiece") if isinstance(model, dict) else None
    if kind != "WordPiece" or not isinstance(vocabulary, dict):
        raise UserError(
            f'{path}: expected a "model" of the type "WordPiece" with a "vocab", got '
            f"the type {json.dumps(kind)[:80]}"
        )
    # Before the library, which aborts at some ids.
    _check_ids(path, vocabulary)
    # Padding, truncation and templates are ours, whatever was saved.
    description |= {"padding": None, "truncation": None, "post_processor": None}
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(description))
    except Exception as error:  # nothing narrower is raised
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a tokenizer: {reason[:200]}") from error
    _check_ids(path, tokenizer.get_vocab())
    for token in description.get("added_tokens") or []:
        if tokenizer.token_to_id(token["content"]) != token["id"]:
            raise UserError(
                f"{path}: the added token {quoted([token['content']])} has the id "
                f"{token['id']}; expected {tokenizer.token_to_id(token['content'])}"
            )
    unknown = tokenizer.model.unk_token
    if unknown not in vocabulary:
        raise UserError(
            f"{path}: the unk_token, {quoted([unknown])}, is not in the vocabulary"
        )
    return _with_special_tokens(tokenizer)


def _check_ids(path: pathlib.Path, vocabulary: dict[str, Any]) -> None:
    """Refuses what is no list of tokens, one a line."""
    used = {i for i in vocabulary.values() if type(i) is int}
    for i in range(len(vocabulary)):
        if i not in used:
            raise UserError(
                f"{path}: no token has the id {i}, though there are {len(vocabulary)}; "
                f"the ids must be 0 to {len(vocabulary) - 1}"
            )
    for token in vocabulary:
        if "\n" in token or "\r" in token:
            raise UserError(
                f"{path}: the token {quoted([token])} has a line break, which no line "
                "of vocab.txt can hold"
            )
