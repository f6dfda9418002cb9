"""The teacher: loaded from a directory, and its logits computed once.

Training it is a run like any other, see `kd.run`.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from kd import config
from kd.atomic import atomic_write
from kd.data.task import Prepared, Split, Task
from kd.errors import UserError
from kd.evaluate.predict import predictor
from kd.experiment import Experiment
from kd.models import hub, saved
from kd.train.mesh import replicate
from kd.types import ComputeDtype, Model, Params


class LoadedTeacher(NamedTuple):
    """A frozen network, ready to be asked."""

    model: Model
    params: Params
    fingerprint: str
    """Of everything that its logits depend on, beside the input."""


def cache_key(recipe: Experiment, corpus_fingerprint: str) -> str:
    """A name for the teacher that a recipe gives: 12 hexadecimal digits.

    Everything that determines the weights goes in: task, records, tokenizer, model,
    recipe, seed. Where the records lie and how often progress is logged do not.
    """
    tree = _with_fingerprints(config.identity(config.to_json(recipe)))
    everything = json.dumps([tree, corpus_fingerprint], sort_keys=True)
    return hashlib.sha256(everything.encode()).hexdigest()[:12]


def _with_fingerprints(tree: Any) -> Any:
    """The tree with contents of networks and vocabularies in place of paths."""
    if isinstance(tree, dict):
        return {
            name: hub.fingerprint(value)
            if name in ("pretrained", "vocabulary")
            else _with_fingerprints(value)
            for name, value in tree.items()
        }
    return [_with_fingerprints(x) for x in tree] if isinstance(tree, list) else tree


def model_directory(directory: str | pathlib.Path) -> pathlib.Path:
    """Where the network is in a directory: a run's is in its folder `model`.

    Raises:
        UserError: there is no such directory.
    """
    directory = pathlib.Path(os.path.expanduser(directory))
    if not directory.is_dir():
        raise UserError(f"teacher.directory: {directory} is not a directory")
    inner = directory / "model"
    return inner if (inner / "model.safetensors").exists() else directory


def load(
    directory: pathlib.Path,
    *,
    task: Task,
    data: Prepared,
    compute_dtype: ComputeDtype,
) -> LoadedTeacher:
    """Loads a trained teacher and checks that it fits the student's task.

    Args:
        directory: with `model.safetensors`, `config.json`, and what turns records
            into inputs: the tokenizer of text, the normalization of arrays.
        task: of the student.
        data: of the student.
        compute_dtype: of its activations.

    Raises:
        UserError: there is no fine-tuned network, its classes are not those of the
            task, its inputs are others, or it cannot read the examples.
    """
    labels = task.labels
    network, found = saved.read_config(directory)
    if len(found) != len(labels):
        raise UserError(
            f"{directory}: the teacher has {len(found)} classes, the task has "
            f"{len(labels)}"
        )
    # Networks of the hub often say no more of their classes than LABEL_0, LABEL_1.
    unnamed = [f"label_{i}" for i in range(len(labels))]
    if _folded(found) not in (_folded(labels), unnamed):
        raise UserError(
            f"{directory}: the teacher's classes are {', '.join(map(str, found))} in "
            f"this order, the task's {', '.join(labels)}"
        )
    if task.preprocessing(directory) != data.preprocessing:
        raise UserError(
            f"{directory}: the teacher's tokenizer or normalization is not the "
            "student's; both must see the same inputs"
        )
    model = network.build(len(labels), compute_dtype=compute_dtype)
    batch = _longest(data.train)
    try:
        template = jax.eval_shape(model.init, jax.random.key(0), batch)
        jax.eval_shape(model.apply, template, batch, None)
    except UserError as error:
        raise UserError(f"{directory}: {error}") from error
    params, fresh, _ = saved.load(directory, network, template)
    if fresh:
        raise UserError(
            f"{directory} has no {' and no '.join(fresh)}: it is not fine-tuned, so it "
            "can be no teacher"
        )
    digest = hashlib.sha256(f"{network} {compute_dtype}".encode())
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf).data)
    return LoadedTeacher(model, params, digest.hexdigest())


def _folded(labels: Sequence[str]) -> list[str]:
    return [str(label).casefold() for label in labels]


def _longest(split: Split) -> dict[str, np.ndarray]:
    """Inputs of an example of the last group."""
    return split.inputs(np.array([split.groups.argmax()]))


class TeacherOnData(NamedTuple):
    """A teacher and what it says about the data."""

    model: Model
    params: Params
    source: str
    """Where it comes from, for the record."""
    dev_logits: Float[np.ndarray, "num_dev v"]
    train_logits: Float[np.ndarray, "num_train v"] | None
    """None where it is asked anew in every step, or not at all."""


def consult(
    teacher: LoadedTeacher,
    source: str,
    data: Prepared,
    *,
    on_train: bool,
    mesh: Mesh,
    cache: pathlib.Path,
    say: Callable[[str], Any],
) -> TeacherOnData:
    """Asks the teacher about dev and, if `on_train`, about the training split.

    Args:
        teacher: whom to ask.
        source: see `TeacherOnData`.
        data: what about.
        on_train: whether to compute the logits on the training split, or read them
            from `cache`.
        mesh: of the devices to compute on.
        cache: folder of logits computed before.
        say: shows a line to the person who waits.
    """
    predict = predictor(teacher.model, mesh=mesh)
    params = replicate(teacher.params, mesh)
    train_logits = None
    if on_train:
        path = cache / f"{_logits_key(teacher, data)}.npy"
        train_logits = _read_logits(path, len(data.train), say)
        if train_logits is None:
            _write_logits(path, predict(params, data.train))
            train_logits = np.load(path, mmap_mode="r", allow_pickle=False)
    dev_logits = predict(params, data.dev)
    return TeacherOnData(
        teacher.model, teacher.params, source, dev_logits, train_logits
    )


def _logits_key(teacher: LoadedTeacher, data: Prepared) -> str:
    # The weights and the inputs themselves, so that logits of another teacher or of
    # other data are never taken for these.
    digest = hashlib.sha256(teacher.fingerprint.encode())
    digest.update(data.train.content())
    return digest.hexdigest()[:16]


def _read_logits(
    path: pathlib.Path, num_examples: int, say: Callable[[str], Any]
) -> Float[np.ndarray, "num_train v"] | None:
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


def _write_logits(path: pathlib.Path, logits: Float[np.ndarray, "n v"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as file:
        np.save(file, logits, allow_pickle=False)
