"""Batches in an order that is a pure function of (seed, epoch).

An epoch is a plan: a list of batches of example indices, all of one batch padded to
the same width. Resuming is a position in the plan, not a replay. There are as many
input shapes as widths, so as many compilations.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Float, Int

from kd.data.text import Encoded


class PlannedBatch(NamedTuple):
    """The examples of one batch and the width to which they are padded."""

    index: Int[np.ndarray, "b"]
    width: int


def plan_epoch(
    lengths: Int[np.ndarray, "num_examples"],
    *,
    widths: Sequence[int],
    batch_size: int,
    seed: int,
    epoch: int,
) -> list[PlannedBatch]:
    """Every example once, shuffled, in batches of examples of about equal length.

    Args:
        lengths: tokens of every example.
        widths: increasing; an example goes to the first width that holds it.
        batch_size: examples in a batch; the last of each width may be shorter.
        seed: of the order, with
        epoch: counted from 0. Nothing else is random.

    Returns:
        The batches; their number does not depend on seed and epoch.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = random.permutation(len(lengths))
    batches = [
        PlannedBatch(members[start : start + batch_size], width)
        for width, members in _by_width(order, lengths, widths)
        for start in range(0, len(members), batch_size)
    ]
    return [batches[i] for i in random.permutation(len(batches))]


def plan_in_order(
    lengths: Int[np.ndarray, "num_examples"],
    *,
    widths: Sequence[int],
    batch_size: int,
) -> list[PlannedBatch]:
    """Every example once, for evaluation."""
    return [
        PlannedBatch(members[start : start + batch_size], width)
        for width, members in _by_width(np.arange(len(lengths)), lengths, widths)
        for start in range(0, len(members), batch_size)
    ]


def _by_width(order, lengths, widths):
    edges = np.searchsorted(np.asarray(widths), lengths[order])
    if np.any(edges == len(widths)):
        raise ValueError(f"an example is longer than the largest width, {widths[-1]}")
    for i, width in enumerate(widths):
        yield width, order[edges == i]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingBatches:
    """All batches of a training run, `self[i]` being the one of step i.

    Attributes:
        split: the encoded training split.
        widths: widths that examples are padded to.
        batch_size: examples in a batch.
        rows: rows of a batch, at least `batch_size`; the rest are masked. A multiple
            of the number of devices times that of micro-batches.
        seed: of the order.
        teacher_logits: the teacher's logits on the split, where they are cached.
    """

    split: Encoded
    widths: tuple[int, ...]
    batch_size: int
    rows: int
    seed: int
    teacher_logits: Float[np.ndarray, "num_examples v"] | None = None

    @functools.cached_property
    def per_epoch(self) -> int:
        return len(self._plan(0))

    @functools.lru_cache(maxsize=2)  # noqa: B019  (two epochs meet in the prefetch)
    def _plan(self, epoch: int) -> list[PlannedBatch]:
        return plan_epoch(
            self.split.lengths,
            widths=self.widths,
            batch_size=self.batch_size,
            seed=self.seed,
            epoch=epoch,
        )

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        epoch, position = divmod(step, self.per_epoch)
        planned = self._plan(epoch)[position]
        return collate(self.split, planned, self.rows, self.teacher_logits)

    def from_step(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """The batches of steps start, ..., stop - 1, made ahead by two threads."""
        steps = grain.MapDataset.range(start, stop).map(self.__getitem__)
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)
        return iter(steps.to_iter_dataset(options))


def collate(
    split: Encoded,
    planned: PlannedBatch,
    rows: int,
    teacher_logits: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of one batch; rows beyond its examples repeat one and are masked.

    Returns:
        tokens [rows, n] int32, token_mask [rows, n] bool, labels [rows] int32,
        mask [rows] bool, index [rows] int32 (of the example in its split), and
        segments [rows, n] int32 for pairs of sentences, teacher_logits [rows, v]
        float32 where given.
    """
    num_examples = len(planned.index)
    index = np.concatenate(
        [planned.index, np.repeat(planned.index[:1], rows - num_examples)]
    )
    tokens, segments, token_mask = split.padded(index, planned.width)
    batch = {
        "tokens": tokens,
        "token_mask": token_mask,
        "labels": split.labels[index],
        "mask": np.arange(rows) < num_examples,
        "index": index.astype(np.int32),
    }
    if split.paired:
        batch["segments"] = segments
    if teacher_logits is not None:
        batch["teacher_logits"] = teacher_logits[index]
    return batch
