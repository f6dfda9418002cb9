"""Checkpoints of a training run, on Orbax.

A checkpoint is the `TrainState` alone. Its step is also the position in the data,
because the order of the data is a pure function of the seed, and the cursor in
`metrics.jsonl`, whose rows name their step.
"""

import pathlib
import zlib

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from kd.types import TrainState


class Checkpoints:
    """The checkpoints in a directory, the newest `keep` of them.

    Orbax writes under a temporary name and renames, so a run killed while saving
    leaves no half checkpoint. What is damaged later is found by a checksum.
    """

    def __init__(self, directory: pathlib.Path, *, keep: int = 2):
        self._checkpointer = ocp.training.Checkpointer(
            directory.absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )
        self.directory = directory

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        return sorted(found.step for found in self._checkpointer.checkpoints)

    def save(self, state: TrainState) -> None:
        """Saves the state under its step; does nothing if it is there already."""
        step = int(state.step)
        if step not in self.steps:
            self._checkpointer.save(
                step, state, force=True, custom_metadata={"crc32": _checksum(state)}
            )

    def restore(self, like: TrainState) -> tuple[TrainState | None, list[str]]:
        """The newest checkpoint that is whole.

        Damaged ones are removed, since their steps will be reached again.

        Args:
            like: a state of the same structure, shapes, dtypes and shardings.

        Returns:
            The state, or None where there is no checkpoint, and one line on every
            checkpoint that was found damaged.
        """
        problems = []
        for step in reversed(self.steps):
            try:
                state = self._checkpointer.load(
                    step, jax.tree.map(ocp.arrays.to_shape_dtype_struct, like)
                )
                saved = self._checkpointer.metadata(step).custom_metadata
                if _checksum(state) != saved["crc32"]:
                    raise ValueError("its checksum is wrong")
                return state, problems
            except Exception as error:  # whatever a damaged file makes a reader raise
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                problems.append(f"checkpoint of step {step} is damaged ({reason:.120})")
                self._checkpointer.delete(step, missing_ok=True)
        return None, problems

    def close(self) -> None:
        self._checkpointer.close()


def _checksum(state: TrainState) -> int:
    checksum = 0
    for leaf in jax.tree.leaves(state):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        checksum = zlib.crc32(np.ascontiguousarray(leaf), checksum)
    return checksum
