"""Checkpoints of a training run, on Orbax.

A checkpoint is the `TrainState` alone. Its step is also the position in the data,
because the order of the data is a pure function of the seed, and the cursor in
`metrics.jsonl`, whose rows name their step.
"""

import contextlib
import pathlib
import time
import zlib
from typing import Any, cast

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from kd.errors import UserError
from kd.types import TrainState


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
        self.directory = directory

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        return sorted(found.step for found in self._checkpointer.checkpoints)

    def save(self, state: TrainState) -> None:
        """Saves the state under its step; does nothing if it is there already.

        Raises:
            UserError: the disk is full or cannot be written.
        """
        step = int(state.step)
        if step in self.steps:
            return
        checksum: Any = {"crc32": _checksum(state)}
        try:
            self._checkpointer.save(
                step, cast(Any, state), force=True, custom_metadata=checksum
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

        Others are set aside, since their steps will be reached again.

        Args:
            like: a state of the same structure, shapes, dtypes and shardings.

        Returns:
            The state, or None where there is no checkpoint, and one line on every
            checkpoint that could not be read.
        """
        problems: list[str] = []
        for step in reversed(self.steps):
            try:
                state = self._checkpointer.load(
                    step, jax.tree.map(ocp.arrays.to_shape_dtype_struct, like)
                )
                saved = self._checkpointer.metadata(step).custom_metadata
                if saved != {"crc32": _checksum(state)}:
                    raise ValueError("its checksum is wrong")
                return cast(TrainState, state), problems
            except Exception as error:  # whatever a damaged file makes a reader raise
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                aside = self._set_aside(step)
                problems.append(
                    f"the checkpoint of step {step} cannot be read ({reason:.120}); "
                    f"moved to {aside}"
                )
        return None, problems

    def _set_aside(self, step: int) -> pathlib.Path:
        aside = self.directory.with_name("damaged-checkpoints")
        aside.mkdir(exist_ok=True)
        target = aside / f"{step}-{time.time_ns()}"
        (self.directory / str(step)).rename(target)
        self._checkpointer.reload()
        return target

    def close(self) -> None:
        # A save that failed raised already, in `save`; here it would raise once more.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            self._checkpointer.close()


def _checksum(state: Any) -> int:
    checksum = 0
    for leaf in jax.tree.leaves(state):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        checksum = zlib.crc32(np.asarray(leaf).tobytes(), checksum)
    return checksum
