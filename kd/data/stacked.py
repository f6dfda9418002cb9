"""The batches of several seeds as one, with an axis of seeds in front."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from kd.data.pipeline import TrainingBatches, made_ahead


@dataclasses.dataclass(frozen=True, eq=False)
class StackedBatches:
    """All batches of several training runs that differ in their seed.

    `self[i]` has what each has at step i, [s, rows, ...]. Batches of one step may be of
    different groups (`Split.groups`), text of different widths: all are filled up with
    zeros to the widest. Then "width" [s, rows] int32 says how many tokens there were,
    since dropout draws by it.
    """

    members: tuple[TrainingBatches, ...]

    @property
    def batch_size(self) -> int:
        """Of one of them."""
        return self.members[0].batch_size

    @property
    def per_epoch(self) -> int:
        return self.members[0].per_epoch

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        return stack([member[step] for member in self.members], self._tell_width)

    @functools.cached_property
    def _tell_width(self) -> bool:
        groups = self.members[0].split.groups
        return bool(np.any(groups != groups[0]))

    def from_step(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """The batches of steps start, ..., stop - 1, made ahead by two threads."""
        return made_ahead(self.__getitem__, start, stop)


def stack(
    batches: Sequence[dict[str, np.ndarray]], tell_width: bool
) -> dict[str, np.ndarray]:
    """Some batches as one, see `StackedBatches`.

    Args:
        batches: of the same names, dtypes and numbers of axes.
        tell_width: whether the result has the widths of text.
    """
    stacked = {name: _filled([b[name] for b in batches]) for name in batches[0]}
    if tell_width and "tokens" in stacked:
        widths = [batch["tokens"].shape[-1] for batch in batches]
        rows = stacked["mask"].shape[1]
        stacked["width"] = np.repeat(np.array(widths, np.int32)[:, None], rows, axis=1)
    return stacked


def _filled(arrays: Sequence[np.ndarray]) -> np.ndarray:
    shape = tuple(map(max, zip(*(array.shape for array in arrays), strict=True)))
    if all(array.shape == shape for array in arrays):
        return np.stack(arrays)
    filled = np.zeros((len(arrays), *shape), arrays[0].dtype)
    for whole, array in zip(filled, arrays, strict=True):
        whole[tuple(map(slice, array.shape))] = array
    return filled
