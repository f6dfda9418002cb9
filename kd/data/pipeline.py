"""Batches in an order that is a pure function of (seed, epoch).

An epoch is a plan: a list of batches of example indices, all of one batch of the same
shape. Resuming is a position in the plan, not a replay. There are as many input shapes
as groups of examples (for text, of lengths), so as many compilations.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import numpy as np
from jaxtyping import Int, Shaped

from kd.data.sample import Sample
from kd.data.task import Split

_NONE: Mapping[str, Any] = types.MappingProxyType({})

Plan = list[Int[np.ndarray, "b"]]
"""The examples of each batch, by their place in the split."""


def plan_epoch(
    groups: Int[np.ndarray, "num_examples"], *, batch_size: int, seed: int, epoch: int
) -> Plan:
    """Every example once, shuffled, in batches of examples of one group.

    Args:
        groups: of every example, see `Split.groups`.
        batch_size: examples in a batch; the last of each group may be shorter.
        seed: of the order, with
        epoch: counted from 0. Nothing else is random.

    Returns:
        The batches; their number does not depend on seed and epoch.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = random.permutation(len(groups))
    batches = _batches(order, groups, batch_size)
    return [batches[i] for i in random.permutation(len(batches))]


def plan_in_order(groups: Int[np.ndarray, "num_examples"], *, batch_size: int) -> Plan:
    """Every example once, for evaluation."""
    return _batches(np.arange(len(groups)), groups, batch_size)


def _batches(
    order: Int[np.ndarray, "num_examples"],
    groups: Int[np.ndarray, "num_examples"],
    batch_size: int,
) -> Plan:
    members = (order[groups[order] == group] for group in np.unique(groups))
    return [
        found[start : start + batch_size]
        for found in members
        for start in range(0, len(found), batch_size)
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingBatches:
    """All batches of a training run, `self[i]` being the one of step i.

    Attributes:
        split: the training split.
        batch_size: examples in a batch.
        rows: rows of a batch, at least `batch_size`; the rest are masked. A multiple
            of the number of devices times that of micro-batches.
        seed: of the order.
        answers: what else a batch holds of its examples, by name: the cached logits of
            teachers on the split, and what the procedure notes; arrays [num_examples,
            ...], or what gives rows as they do.
        sample: which of the examples, and with which labels; None for the split as it
            is.
        here: the rows of a batch that this process makes, in order; by default all. Of
            all other rows batches have the mask alone.
    """

    split: Split
    batch_size: int
    rows: int
    seed: int
    answers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sample: Sample | None = None
    here: Int[np.ndarray, "rows_here"] | None = None

    @functools.cached_property
    def per_epoch(self) -> int:
        return len(self._plan(0))

    @functools.cached_property
    def _plan(self) -> Callable[[int], Plan]:
        # Each has its own: two epochs meet in the prefetch.
        return functools.lru_cache(maxsize=2)(self._make_plan)

    def _make_plan(self, epoch: int) -> Plan:
        groups = self.split.groups
        kept = None if self.sample is None else self.sample.kept
        plan = plan_epoch(
            groups if kept is None else groups[kept],
            batch_size=self.batch_size,
            seed=self.seed,
            epoch=epoch,
        )
        return plan if kept is None else [kept[index] for index in plan]

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        epoch, position = divmod(step, self.per_epoch)
        index = self._plan(epoch)[position]
        batch = collate(self.split, index, self.rows, self.answers, self.here)
        if self.sample is None:
            return batch
        # Weights count the labels of the whole batch.
        padded = fill_rows(index, self.rows)
        told = self.sample.of_batch(padded, batch["mask"])
        told = {name: _those(values, self.here) for name, values in told.items()}
        if batch["labels"].ndim > 1:
            told["labels"] = told["labels"][:, : batch["labels"].shape[1]]
        return batch | told

    @functools.cached_property
    def widest(self) -> int:
        """The first step whose batch is of the last group: no arrays are larger."""
        groups = [self.split.groups[index[0]] for index in self._plan(0)]
        return int(np.argmax(groups))

    def num_seen(self, num_steps: int) -> int:
        """Examples of the first batches, each as often as it comes."""
        whole, rest = divmod(num_steps, self.per_epoch)
        in_epoch = sum(len(index) for index in self._plan(0))
        return whole * in_epoch + sum(len(index) for index in self._plan(whole)[:rest])

    def from_step(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """The batches of steps start, ..., stop - 1, made ahead by two threads."""
        return made_ahead(self.__getitem__, start, stop)


def made_ahead(
    batch_of: Callable[[int], dict[str, np.ndarray]], start: int, stop: int
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of steps start, ..., stop - 1, made ahead by two threads."""
    steps = grain.MapDataset.range(start, stop).map(batch_of)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)
    return iter(steps.to_iter_dataset(options))


def collate(
    split: Split,
    index: Int[np.ndarray, "b"],
    rows: int,
    answers: Mapping[str, Any] = _NONE,
    here: Int[np.ndarray, "rows_here"] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of one batch; rows beyond its examples repeat one and are masked.

    Returns:
        What `split.inputs` gives, labels [rows], mask [rows] bool, index [rows] int32
        (of the example in its split), and the rows of all answers by their names. Of
        all but the mask those `here` alone.
    """
    padded = _those(fill_rows(index, rows), here)
    # A split of texts gives labels as wide as its texts are padded to.
    batch = {"labels": split.labels[padded]} | split.inputs(padded)
    batch |= {
        "mask": np.arange(rows) < len(index),
        "index": padded.astype(np.int32),
    }
    return batch | {name: values[padded] for name, values in answers.items()}


def fill_rows(index: Int[np.ndarray, "b"], rows: int) -> Int[np.ndarray, "rows"]:
    """The examples of a batch, the first repeated until there are `rows`."""
    return np.concatenate([index, np.repeat(index[:1], rows - len(index))])


def _those(
    values: Shaped[np.ndarray, "rows ..."], here: Int[np.ndarray, "k"] | None
) -> Shaped[np.ndarray, "k ..."]:
    return values if here is None else values[here]
