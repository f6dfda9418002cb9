"""What a teacher says of the training split, computed in memory and kept in a file."""

import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Float, Int

from kd import hosts
from kd.atomic import atomic_write
from kd.data.task import Prepared
from kd.networks.load import Loaded, longest
from kd.types import Batch, Outputs


def on_train(
    teacher: Loaded,
    ask: Callable[..., dict[str, np.ndarray]],
    of: Callable[[Outputs, Batch], dict[str, Any]],
    wanted: Sequence[str],
    data: Prepared,
    about: Int[np.ndarray, "q"],
    cache: pathlib.Path,
    say: Callable[[str], Any],
) -> dict[str, Float[np.ndarray, "q ..."]]:
    """What a teacher says of training examples, by the endings of the files' names.

    What the cache lacks is computed in one pass and put there.

    Args:
        teacher: whom to ask.
        ask: what it says of examples of a split, by the endings.
        of: that, of its outputs for a batch.
        wanted: the endings.
        data: of which split.
        about: the examples.
        cache: folder of what was computed before.
        say: shows a line to the person who waits.
    """

    def shapes(params, batch):
        return of(teacher.model.apply(params, batch, None), batch)

    key = _key(teacher, data, about)
    paths = {ending: cache / f"{key}{ending}.npy" for ending in wanted}
    widths = jax.eval_shape(shapes, teacher.params, longest(data.train))
    found = {
        ending: _read(path, (len(about), *widths[ending].shape[1:]), say)
        for ending, path in paths.items()
    }
    # In a folder that processes share, one of them may see a new file later.
    missing = hosts.of_first(
        lambda: [ending for ending, values in found.items() if values is None]
    )
    if missing:
        made = ask(data.train, about)
        for ending in missing:
            hosts.of_first(lambda ending=ending: _write(paths[ending], made[ending]))
            # The first reads what it wrote; others may not see the file at once.
            found[ending] = None if hosts.is_first() else made[ending]
    for ending, path in paths.items():
        if found[ending] is None:
            found[ending] = np.load(path, mmap_mode="r", allow_pickle=False)
    return cast(dict[str, np.ndarray], found)


def in_place(
    logits: Float[np.ndarray, "q ..."], about: Int[np.ndarray, "q"], num_train: int
) -> Float[np.ndarray, "num_train ..."]:
    """What was said about some examples, among NaN of the others."""
    if len(about) == num_train:
        return logits
    everywhere = np.full((num_train, *logits.shape[1:]), np.nan, logits.dtype)
    everywhere[about] = logits
    return everywhere


def _key(teacher: Loaded, data: Prepared, about: Int[np.ndarray, "q"]) -> str:
    # The weights and the inputs themselves, so that logits of another teacher or of
    # other data are never taken for these.
    digest = hashlib.sha256(teacher.fingerprint.encode())
    digest.update(data.train.content())
    if len(about) < len(data.train):
        digest.update(np.ascontiguousarray(about).tobytes())
    return digest.hexdigest()[:16]


def _read(
    path: pathlib.Path, shape: tuple[int, ...], say: Callable[[str], Any]
) -> Float[np.ndarray, "q ..."] | None:
    if not path.exists():
        return None
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if values.shape == shape and values.dtype == np.float32:
            return values
    except (ValueError, OSError, EOFError, SyntaxError):
        pass
    say(f"{path} is damaged; computing the teacher's answers again")
    return None


def _write(path: pathlib.Path, values: Float[np.ndarray, "n ..."]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as file:
        np.save(file, values, allow_pickle=False)
