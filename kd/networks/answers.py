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
    final: Float[np.ndarray, "num_final v"]
    """The same of what final networks are scored on, `Prepared.final`."""
    train: tuple[Float[np.ndarray, "num_train v"], ...] | None
    """Of each; None where they are asked anew in every step, or not at all."""

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
    mesh: Mesh,
    cache: pathlib.Path,
    say: Callable[[str], Any],
) -> Answers:
    """Asks teachers about dev, test and, if `on_train`, about the training split.

    Args:
        teachers: whom to ask, one or several.
        combine: the outputs of several as those of one.
        data: what about.
        on_train: whether to compute the logits on the training split, or read them
            from `cache`.
        mesh: of the devices to compute on.
        cache: folder of logits computed before.
        say: shows a line to the person who waits.
    """
    dev, test, train = [], [], []
    for teacher in teachers:
        predict = predictor(teacher.model, mesh=mesh)
        params = replicate(teacher.params, mesh)
        dev.append(predict(params, data.dev))
        if data.test is not None:
            test.append(predict(params, data.test))
        if not on_train:
            continue
        path = cache / f"{_key(teacher, data)}.npy"
        logits = _read(path, (len(data.train), dev[-1].shape[1]), say)
        if logits is None:
            _write(path, predict(params, data.train))
            logits = np.load(path, mmap_mode="r", allow_pickle=False)
        train.append(logits)

    def together(outputs):
        return outputs[0] if len(outputs) == 1 else np.asarray(combine(outputs))

    on_dev = together(dev)
    return Answers(
        tuple(teachers),
        on_dev,
        together(test) if test else on_dev,
        tuple(train) if on_train else None,
    )


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
