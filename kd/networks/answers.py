"""What teachers say about the data, computed once and kept."""

import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from kd.atomic import atomic_write
from kd.data.task import Prepared
from kd.networks.load import Loaded
from kd.networks.predict import predictor
from kd.train.mesh import replicate


class Answers(NamedTuple):
    """Teachers and what they say about the data."""

    teachers: tuple[Loaded, ...]
    dev: Float[np.ndarray, "num_dev v"]
    """Of all teachers as one."""
    train: tuple[Float[np.ndarray, "num_train v"], ...] | None
    """Of each; None where they are asked anew in every step, or not at all."""
    in_step: bool
    """Whether they are asked in every step: about everything, or a view of it."""

    @property
    def source(self) -> str:
        """Where they come from, for the record."""
        return "; ".join(teacher.source for teacher in self.teachers)


def consult(
    teachers: Sequence[Loaded],
    combine: Callable[[list[Any]], Any],
    data: Prepared,
    *,
    on_train: bool,
    in_step: bool,
    mesh: Mesh,
    cache: pathlib.Path,
    say: Callable[[str], Any],
) -> Answers:
    """Asks teachers about dev and, if `on_train`, about the training split.

    Args:
        teachers: whom to ask, one or several.
        combine: the outputs of several as those of one.
        data: what about.
        on_train: whether to compute the logits on the training split, or read them
            from `cache`.
        in_step: whether they will be asked in every step.
        mesh: of the devices to compute on.
        cache: folder of logits computed before.
        say: shows a line to the person who waits.
    """
    dev, train = [], []
    for teacher in teachers:
        predict = predictor(teacher.model, mesh=mesh)
        params = replicate(teacher.params, mesh)
        dev.append(predict(params, data.dev))
        if not on_train:
            continue
        path = cache / f"{_key(teacher, data)}.npy"
        logits = _read(path, (len(data.train), dev[-1].shape[1]), say)
        if logits is None:
            _write(path, predict(params, data.train))
            logits = np.load(path, mmap_mode="r", allow_pickle=False)
        train.append(logits)
    together = dev[0] if len(dev) == 1 else np.asarray(combine(dev))
    on_train_split = tuple(train) if on_train else None
    return Answers(tuple(teachers), together, on_train_split, in_step)


def _key(teacher: Loaded, data: Prepared) -> str:
    # The weights and the inputs themselves, so that logits of another teacher or of
    # other data are never taken for these.
    digest = hashlib.sha256(teacher.fingerprint.encode())
    digest.update(data.train.content())
    return digest.hexdigest()[:16]


def _read(
    path: pathlib.Path, shape: tuple[int, int], say: Callable[[str], Any]
) -> Float[np.ndarray, "num_train v"] | None:
    if not path.exists():
        return None
    try:
        logits = np.load(path, mmap_mode="r", allow_pickle=False)
        if logits.shape == shape and logits.dtype == np.float32:
            return logits
    except (ValueError, OSError, EOFError, SyntaxError):
        pass
    say(f"{path} is damaged; computing the teacher's logits again")
    return None


def _write(path: pathlib.Path, logits: Float[np.ndarray, "n v"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as file:
        np.save(file, logits, allow_pickle=False)
