"""A teacher asked once about the training split, and what then stands in for it."""

import contextlib
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from kd import hosts
from kd.data.task import Prepared
from kd.errors import UserError
from kd.networks.kept import folder as folders
from kd.networks.kept.measured import measured, shared_of
from kd.networks.kept.record import Streamed
from kd.networks.load import Loaded, longest
from kd.networks.predict import streamer
from kd.train.mesh import replicate
from kd.types import Model, answers_name

_SILENCE = 60.0
"""Seconds between lines that say how far it is."""
_SEEN = 60.0
"""Seconds within which what one process wrote must be seen by the others."""


class Kept(NamedTuple):
    """What a teacher has said, kept."""

    teacher: Loaded
    """That reads it from a batch, instead of running."""
    arrays: Mapping[str, Any]
    """What batches hold of each example of the split, by name."""
    facts: dict[str, Any]
    """For the record: what is kept, how many bytes, how it differs from the teacher."""
    folder: pathlib.Path


class OfSome:
    """Arrays of some examples of a split, as if they were of all."""

    def __init__(self, values: np.ndarray, about: Int[np.ndarray, "q"], num: int):
        self._values = values
        self._places = np.zeros(num, np.int64)
        self._places[about] = np.arange(len(about))
        self._known = np.zeros(num, bool)
        self._known[about] = True

    @property
    def nbytes(self) -> int:
        """Of those that there are."""
        return self._values.nbytes

    def __getitem__(self, index: Int[np.ndarray, "b"]) -> np.ndarray:
        """Rows of examples; NaN, where there is one, of those not asked about."""
        rows = np.array(self._values[self._places[index]])
        if jnp.issubdtype(rows.dtype, jnp.inexact):
            rows[~self._known[index]] = np.nan
        return rows


def kept(
    i: int,
    teacher: Loaded,
    keep: Streamed,
    data: Prepared,
    about: Int[np.ndarray, "q"],
    *,
    mesh: Mesh,
    cache: pathlib.Path,
    say: Callable[[str], Any],
) -> Kept:
    """What a teacher says, read from a cache; put there first as far as it is missing.

    Args:
        i: which of the teachers it is.
        teacher: whom to ask.
        keep: what is kept of its answers.
        data: about whose training split.
        about: which examples of it, increasing.
        mesh: of the devices to compute on.
        cache: folder of all that is kept.
        say: shows a line to the person who waits.

    Raises:
        UserError: it cannot be kept of this teacher, or the disk has no room.
    """
    of_one = jax.eval_shape(
        teacher.model.apply, teacher.params, longest(data.train), None
    )
    if problem := keep.problem(of_one):
        raise UserError(problem)
    shapes = jax.eval_shape(keep.arrays, of_one)
    settings = {
        "keep": repr(keep),
        "teacher": teacher.fingerprint,
        "data": _content(data, about),
        "inputs": data.preprocessing,
    }
    description = folders.described(
        settings,
        {
            name: jax.ShapeDtypeStruct((len(about), *x.shape[1:]), x.dtype)
            for name, x in shapes.items()
        },
    )
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    folder = cache / key[:16]
    what = (
        f"answers of {teacher.source} on {len(about):,} examples, "
        f"{keep.described(of_one)}"
    )
    found = _of_first(lambda: folders.look(folder, description))
    if found.measured is None:
        _make(folder, description, teacher, keep, data, about, mesh, what, say)
    found = _seen(folder, description)
    arrays = folders.read(folder, description)
    whole = len(about) == len(data.train)
    size = folders.num_bytes(description)
    num_predictions = len(about) * int(np.prod(of_one.logits.shape[1:-1]))
    say(f"{what}: {folders.size_of(size)} in {folder}")
    return Kept(
        reader(i, teacher, keep, [*arrays], shared_of(teacher, keep, data)),
        {
            name_in_batch(i, name): x if whole else OfSome(x, about, len(data.train))
            for name, x in arrays.items()
        },
        {
            "what": keep.described(of_one),
            "bytes": size,
            "bytes_per_prediction": round(size / max(num_predictions, 1), 2),
            **(found.measured or {}),
        },
        folder,
    )


def _content(data: Prepared, about: Int[np.ndarray, "q"]) -> str:
    """Of the examples, in order."""
    digest = hashlib.sha256(data.train.content())
    if len(about) < len(data.train):
        digest.update(np.ascontiguousarray(about).tobytes())
    return digest.hexdigest()


def name_in_batch(i: int, name: str) -> str:
    """What a batch calls an array that is kept of teacher i."""
    return f"{answers_name(i)}/{name}"


def reader(
    i: int, teacher: Loaded, keep: Streamed, names: Sequence[str], shared: Any
) -> Loaded:
    """A network that takes what a teacher says from the batch.

    Args:
        i: which of the teachers it is.
        teacher: that network, or its sizes alone.
        keep: what is kept of its answers.
        names: of the arrays that are.
        shared: what is the same for all predictions, its parameters.
    """

    def apply(shared, batch, key):
        del key
        arrays = {name: batch[name_in_batch(i, name)] for name in names}
        return keep.outputs(_as_wide(arrays, batch), shared)

    return Loaded(
        Model(teacher.model.init, apply),
        shared,
        teacher.source,
        f"{keep!r} {teacher.fingerprint}",
    )


def _as_wide(arrays: Mapping[str, Any], batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arrays of sequences, cut to the length that those of a batch have."""
    if "prediction_mask" not in batch:
        return arrays
    length = batch["prediction_mask"].shape[1]
    return {name: x[:, :length] for name, x in arrays.items()}


def _of_first(look: Callable[[], folders.Found]) -> folders.Found:
    """What the first process finds."""
    told: list[Any] = hosts.of_first(lambda: [*look()])
    return folders.Found(*told)


def _make(
    folder: pathlib.Path,
    description: Mapping[str, Any],
    teacher: Loaded,
    keep: Streamed,
    data: Prepared,
    about: Int[np.ndarray, "q"],
    mesh: Mesh,
    what: str,
    say: Callable[[str], Any],
) -> None:
    """Asks about what the folder lacks, and writes it there."""
    with contextlib.ExitStack() as held:

        def claim() -> None:
            waiting = f"{folder}: another process is writing it; waiting"
            held.enter_context(folders.alone(folder, lambda: say(waiting)))

        hosts.of_first(claim)
        found = _of_first(lambda: folders.look(folder, description))
        if found.measured is not None:  # by the process that was waited for
            return
        size = folders.num_bytes(description)
        left = round(size * (1 - found.rows_done / max(len(about), 1)))
        hosts.of_first(lambda: folders.check_space(folder, left, what))
        if found.rows_done:
            say(
                f"{what}: going on with {found.rows_done:,} done, "
                f"{folders.size_of(left)} to write in {folder}"
            )
        else:
            if found.differences:
                say(f"{folder}: {'; '.join(found.differences)}; making it again")
            say(f"{what}: {folders.size_of(size)} to write in {folder}")
            hosts.of_first(lambda: folders.begin(folder, description))
        _write(
            folder, description, teacher, keep, data, about, found.rows_done, mesh, say
        )

        def finish() -> None:
            arrays = folders.read(folder, description)
            differs = measured(arrays, teacher, keep, data, about)
            folders.note(folder, description, len(about), differs)

        hosts.of_first(finish)


def _write(
    folder: pathlib.Path,
    description: Mapping[str, Any],
    teacher: Loaded,
    keep: Streamed,
    data: Prepared,
    about: Int[np.ndarray, "q"],
    done: int,
    mesh: Mesh,
    say: Callable[[str], Any],
) -> None:
    """Every process computes its part, and the first one writes all."""
    stream = streamer(
        teacher.model, mesh=mesh, of=lambda outputs, batch: keep.arrays(outputs)
    )
    order = np.argsort(data.train.groups[about], kind="stable")
    begun = said = time.monotonic()
    with contextlib.ExitStack() as opened:
        writer = None
        if hosts.is_first():
            writer = opened.enter_context(folders.Writer(folder, description, done))
        params = replicate(teacher.params, mesh)
        for arrays in stream(params, data.train, about[order[done:]]):
            num = len(next(iter(arrays.values())))
            # All processes have the same, so that all say what is wrong with it.
            for name, values in arrays.items():
                if not is_storable(values, ruled_out=name in keep.rules_out):
                    raise UserError(
                        f"the teacher's {name} hold numbers that {values.dtype.name} "
                        "has not, or NaN; set keep.dtype=bfloat16 or keep=dense, or "
                        "choose a teacher without NaN"
                    )
            if writer is not None:
                writer.write(order[done : done + num], arrays)
            done += num
            if time.monotonic() - said > _SILENCE:
                said = time.monotonic()
                say(f"{folder}: {100 * done / len(about):.0f} % of the answers written")
        if writer is not None:
            writer.commit()
    say(f"{folder}: written in {time.monotonic() - begun:,.1f} s")


def is_storable(values: np.ndarray, *, ruled_out: bool) -> bool:
    """Whether all are numbers, or, where classes may be ruled out, -inf."""
    if not jnp.issubdtype(values.dtype, jnp.inexact):
        return True
    wide = values.astype(np.float32)
    return bool(np.all(np.isfinite(wide) | (ruled_out & np.isneginf(wide))))


def _seen(folder: pathlib.Path, description: Mapping[str, Any]) -> folders.Found:
    """What lies there in the end; in a shared folder that may take a while to show."""
    ends = time.monotonic() + _SEEN
    while (found := folders.look(folder, description)).measured is None:
        if time.monotonic() > ends:
            raise UserError(
                f"{folder} is not one folder for all: what the first process wrote "
                "there is not seen; give RUNS= that all hosts share"
            )
        time.sleep(0.1)
    return found
