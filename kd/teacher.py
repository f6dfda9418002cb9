"""The teacher: loaded from a directory, and its logits computed once.

Training it is a run like any other, see `kd.run`.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tokenizers
from jax.sharding import Mesh
from jaxtyping import Float

from kd import config
from kd.data import text
from kd.data.prepared import Prepared
from kd.data.text import Encoded
from kd.errors import UserError
from kd.evaluate.predict import predictor
from kd.experiment import Experiment
from kd.models import hub
from kd.models.bert import Bert, ComputeDtype
from kd.train.mesh import replicate
from kd.types import Model, Params


class LoadedTeacher(NamedTuple):
    """A frozen network, ready to be asked."""

    bert: Bert
    model: Model
    params: Params
    fingerprint: str
    """SHA-256 of its weights."""
    compute_dtype: ComputeDtype


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
    compute_dtype: ComputeDtype,
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
    example = {
        "tokens": np.zeros((1, 1), np.int32),
        "token_mask": np.ones((1, 1), bool),
    }
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
    return LoadedTeacher(bert, model, params, fingerprint, compute_dtype)


class Lessons(NamedTuple):
    """A teacher and what it says about the data."""

    teacher: LoadedTeacher
    source: str
    """Where it comes from, for the record."""
    dev_logits: Float[np.ndarray, "num_dev v"]
    train_logits: Float[np.ndarray, "num_train v"] | None
    """None where it is asked anew in every step, or not at all."""


def prepare_lessons(
    teacher: LoadedTeacher,
    source: str,
    data: Prepared,
    *,
    on_train: bool,
    widths: Sequence[int],
    mesh: Mesh,
    cache: pathlib.Path,
    say: Callable[[str], Any],
) -> Lessons:
    """Asks the teacher about dev and, if `on_train`, about the training split.

    Args:
        teacher: whom to ask.
        source: see `Lessons`.
        data: what about.
        on_train: whether to compute the logits on the training split, or read them
            from `cache`.
        widths: that examples are padded to.
        mesh: of the devices to compute on.
        cache: folder of logits computed before.
        say: shows a line to the person who waits.
    """
    predict = predictor(teacher.model, widths=widths, mesh=mesh)
    params = replicate(teacher.params, mesh)
    train_logits = None
    if on_train:
        path = cache / f"{_logits_key(teacher, data.train)}.npy"
        train_logits = _read_logits(path, len(data.train), say)
        if train_logits is None:
            _write_logits(path, predict(params, data.train))
            train_logits = np.load(path, mmap_mode="r", allow_pickle=False)
    return Lessons(teacher, source, predict(params, data.dev), train_logits)


def _logits_key(teacher: LoadedTeacher, split: Encoded) -> str:
    # The weights and the token ids themselves, so that logits of another teacher or
    # of other data are never taken for these.
    digest = hashlib.sha256(f"{teacher.fingerprint} {teacher.compute_dtype}".encode())
    for array in (split.tokens, split.segments, split.offsets):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _read_logits(path, num_examples, say):
    if not path.exists():
        return None
    try:
        logits = np.load(path, mmap_mode="r", allow_pickle=False)
        if len(logits) == num_examples:
            return logits
    except (ValueError, OSError, EOFError):
        pass
    say(f"{path} is damaged; computing the teacher's logits again")
    return None


def _write_logits(path, logits):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        np.save(file, logits, allow_pickle=False)
    temporary.replace(path)
