"""Checkpoints of a training run, on Orbax.

A checkpoint is the `TrainState` alone. Its step is also the position in the data,
because the order of the data is a pure function of the seed, and the cursor in
`metrics.jsonl`, whose rows name their step. Beside it lie notes on the training that
led to it, and what arrays it is made of.

Several processes (`kd.hosts`) write and read a checkpoint together. Each has the whole
state on its devices, so each checks what it read by itself; what is damaged for one
counts as damaged for all.
"""

import contextlib
import json
import pathlib
import time
import zlib
from typing import Any, cast

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from kd import hosts
from kd.errors import UserError
from kd.types import TrainState

_SEEN = 60.0
"""Seconds within which all hosts must see the same checkpoints in a shared folder."""


class Checkpoints:
    """The checkpoints in a directory, the newest `keep` of them.

    Orbax writes under a temporary name and renames, so a run killed while saving
    leaves no half checkpoint. What is damaged later is found by a checksum.
    """

    def __init__(self, directory: pathlib.Path, *, keep: int = 2):
        newest: Any = ocp.training.preservation_policies.LatestN(keep)
        self._checkpointer = ocp.training.Checkpointer(
            str(directory.absolute()),
            preservation_policy=newest,
            cleanup_tmp_directories=True,
        )
        if hosts.several():
            # Orbax asks JAX whether to stop, by the step of this training; so does the
            # loop, which counts over all trainings of the process. The lower number
            # would make JAX choose a moment that never comes.
            manager: Any = self._checkpointer._manager
            manager.reached_preemption = lambda step: False
        self.directory = directory
        self.notes: dict[str, Any] = {}
        """What was noted at the checkpoint saved or restored last; JSON."""

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        return sorted(found.step for found in self._checkpointer.checkpoints)

    def save(self, state: TrainState, notes: dict[str, Any] | None = None) -> None:
        """Saves the state under its step; does nothing if it is there already.

        Args:
            state: to save.
            notes: on the training that led to it, as JSON.

        Raises:
            UserError: the disk is full or cannot be written.
        """
        step = int(state.step)
        if step in self.steps:
            return
        self.notes = notes or {}
        record = {
            "arrays": _checksum(state),
            "structure": _structure(state),
            "notes": self.notes,
        }
        try:
            self._checkpointer.save(
                step, cast(Any, state), force=True, custom_metadata=_sealed(record)
            )
        except (OSError, ValueError, RuntimeError) as error:
            # Tensorstore's errors have no class of their own.
            reason = str(error).partition("\n")[0]
            saved = self.steps
            kept = f"; step {saved[-1]} is saved" if saved else ""
            raise UserError(
                f"the checkpoint of step {step} cannot be written to "
                f"{self.directory}: {reason:.300}{kept}"
            ) from error

    def restore(self, like: TrainState) -> tuple[TrainState | None, list[str]]:
        """The newest checkpoint that is whole.

        Those with damaged bytes are set aside, since their steps will be reached again.

        Args:
            like: a state of the same structure, shapes, dtypes and shardings.

        Returns:
            The state, or None where there is no checkpoint, and one line on every
            checkpoint that could not be read.

        Raises:
            UserError: a checkpoint is whole, but of other arrays; it stays.
        """
        problems: list[str] = []
        for step in reversed(self._steps_of_all()):
            state, reason = None, ""
            try:
                saved = self._checkpointer.metadata(step).custom_metadata
                record = _unsealed(saved)
                self._check_structure(step, record, like)
                state = self._checkpointer.load(
                    step, jax.tree.map(ocp.arrays.to_shape_dtype_struct, like)
                )
                if record["arrays"] != _checksum(state):
                    raise ValueError("its checksum is wrong")
                self.notes = record["notes"]
            except (UserError, MemoryError):  # no fault of the file
                raise
            except Exception as error:  # whatever a damaged file makes a reader raise
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                if "RESOURCE_EXHAUSTED" in reason:
                    raise
            reason = next(filter(None, hosts.of_all(reason)), "")
            if not reason:
                return cast(TrainState, state), problems
            aside = self._set_aside(step)
            problems.append(
                f"the checkpoint of step {step} cannot be read ({reason:.120}); "
                f"moved to {aside}"
            )
        return None, problems

    def _steps_of_all(self) -> list[int]:
        steps = hosts.of_first(lambda: self.steps)
        ends = time.monotonic() + _SEEN
        while self.steps != steps and time.monotonic() < ends:
            time.sleep(1.0)
            self._checkpointer.reload()
        hosts.agree(
            f"the checkpoints in {self.directory}",
            self.steps,
            "all hosts must see the same folder; start again",
        )
        return steps

    def _check_structure(
        self, step: int, record: dict[str, Any], like: TrainState
    ) -> None:
        ours, theirs = _structure(like), record["structure"]
        if theirs is None or ours == theirs:
            return
        first = min(k for k in ours | theirs if ours.get(k) != theirs.get(k))
        here, there = (tree.get(first, "nothing") for tree in (ours, theirs))
        raise UserError(
            f"{self.directory}: the checkpoint of step {step} is whole, but has "
            f"{there} as {first} and this run {here}; go on with the settings of JAX "
            "and the version of this code that it was begun with, or choose another "
            "folder with RUNS="
        )

    def _set_aside(self, step: int) -> str:
        def rename() -> str:
            aside = self.directory.with_name("damaged-checkpoints")
            aside.mkdir(exist_ok=True)
            target = aside / f"{step}-{time.time_ns()}"
            (self.directory / str(step)).rename(target)
            return str(target)

        target = hosts.of_first(rename)
        self._checkpointer.reload()
        self._steps_of_all()  # Sees that the others see it, too.
        return target

    def close(self) -> None:
        # A save that failed raised already, in `save`; here it would raise once more.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            self._checkpointer.close()


def _structure(state: Any) -> dict[str, str]:
    """Every array of the state by its path, as "float32[300, 40]"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{leaf.dtype}{list(leaf.shape)}"
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _sealed(record: dict[str, Any]) -> Any:
    """The record with a checksum of its own: it decides what is called damaged."""
    text = json.dumps(record)
    return {"record": text, "crc32": zlib.crc32(text.encode())}


def _unsealed(sealed: Any) -> dict[str, Any]:
    if sealed.keys() == {"crc32"}:  # written before there were records
        return {"arrays": sealed["crc32"], "structure": None, "notes": {}}
    if sealed["crc32"] != zlib.crc32(sealed["record"].encode()):
        raise ValueError("the checksum of its record is wrong")
    return json.loads(sealed["record"])


def _checksum(state: Any) -> int:
    checksum = 0
    for leaf in jax.tree.leaves(state):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        checksum = zlib.crc32(np.asarray(leaf).tobytes(), checksum)
    return checksum
