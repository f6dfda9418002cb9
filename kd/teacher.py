"""The teacher: loaded from a directory, and its logits computed once.

Training it is a run like any other, see `kd.run`.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import tokenizers
from jaxtyping import Float

from kd import config
from kd.data import text
from kd.data.text import Encoded
from kd.errors import UserError
from kd.experiment import Experiment
from kd.models import hub
from kd.models.bert import Bert
from kd.types import Model, Params


class LoadedTeacher(NamedTuple):
    """A frozen network, ready to be asked."""

    bert: Bert
    model: Model
    params: Params
    fingerprint: str
    """SHA-256 of its weights."""


def key(recipe: Experiment, corpus_fingerprint: str) -> str:
    """A name for the teacher that a recipe gives: 12 hexadecimal digits.

    Everything that determines the weights goes in: task, records, tokenizer, model,
    recipe, seed. Where the records lie and how often progress is logged do not.
    """
    tree = config.to_json(recipe)
    for harmless in ("evaluate_every", "save_every", "log_every"):
        del tree[harmless]
    for place in ("source", "directory"):
        del tree["data"][place]
    everything = json.dumps([tree, corpus_fingerprint], sort_keys=True)
    return hashlib.sha256(everything.encode()).hexdigest()[:12]


def model_directory(directory: str | pathlib.Path) -> pathlib.Path:
    """Where the network is in a directory: a run's is in its folder `model`."""
    directory = pathlib.Path(directory)
    inner = directory / "model"
    return inner if (inner / "model.safetensors").exists() else directory


def load(
    directory: pathlib.Path,
    *,
    tokenizer: tokenizers.Tokenizer,
    num_classes: int,
    compute_dtype: str,
) -> LoadedTeacher:
    """Loads a trained teacher.

    Raises:
        UserError: there is none, it has another number of classes than the task, or
            it was trained with another tokenizer.
    """
    bert, labels = hub.read_config(directory)
    if len(labels) != num_classes:
        raise UserError(
            f"{directory}: the teacher has {len(labels)} classes, the task has "
            f"{num_classes}"
        )
    if bert.vocab_size < tokenizer.get_vocab_size():
        raise UserError(
            f"{directory}: the teacher knows {bert.vocab_size} tokens, the tokenizer "
            f"has {tokenizer.get_vocab_size()}"
        )
    if hub.find_file(directory, "tokenizer.json") is not None:
        own = text.load(directory, lowercase=True)
        if own.get_vocab() != tokenizer.get_vocab():
            raise UserError(
                f"{directory}: the teacher was trained with another vocabulary; give "
                "teacher.recipe.tokenizer and tokenizer the same fields"
            )
    model = bert.build(num_classes, compute_dtype=compute_dtype)
    example = {"tokens": np.zeros((1, 1), np.int32), "token_mask": np.ones((1, 1), bool)}
    params, fresh, _ = hub.load_pretrained(
        directory, jax.eval_shape(model.init, jax.random.key(0), example)
    )
    if fresh:
        raise UserError(
            f"{directory} has no {' and no '.join(fresh)}: it is not fine-tuned, so it "
            "can be no teacher"
        )
    with open(directory / "model.safetensors", "rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    return LoadedTeacher(bert, model, params, fingerprint)


def cached_logits(
    teacher: LoadedTeacher,
    split: Encoded,
    compute: Callable[[], Float[np.ndarray, "num_examples v"]],
    directory: pathlib.Path,
    say: Callable[[str], Any],
) -> Float[np.ndarray, "num_examples v"]:
    """The teacher's logits on a split, from disk where they are.

    The file's name is a hash of the weights and of the token ids, so that logits of
    another teacher or of other data are never taken for these.
    """
    digest = hashlib.sha256(teacher.fingerprint.encode())
    for array in (split.tokens, split.segments, split.offsets):
        digest.update(np.ascontiguousarray(array).data)
    path = directory / f"{digest.hexdigest()[:16]}.npy"
    if path.exists():
        try:
            logits = np.load(path, mmap_mode="r", allow_pickle=False)
            if len(logits) == len(split):
                return logits
        except (ValueError, OSError, EOFError):
            pass
        say(f"{path} is damaged; computing the teacher's logits again")
    logits = compute()
    directory.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        np.save(file, logits, allow_pickle=False)
    temporary.replace(path)
    return np.load(path, mmap_mode="r", allow_pickle=False)
