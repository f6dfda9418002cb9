"""The mini student of `sst2_sinkd`, an epoch of real batches, and our training step.

The teacher's logits are random numbers: how fast a step is does not depend on them.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from kd.data import sources
from kd.data.pipeline import Plan, collate, plan_epoch
from kd.data.sentences import TextTask
from kd.data.text import Encoded
from kd.experiment import Experiment
from kd.models.bert import Bert
from kd.procedures.offline import Offline
from kd.procedures.procedure import Setting
from kd.train.mesh import data_mesh, replicate, shard_batch
from kd.types import Metrics, Params

HostBatch = dict[str, np.ndarray]


class Epoch(NamedTuple):
    """The batches of one epoch."""

    origin: str
    split: Encoded
    plan: Plan
    """Without the last, short batch of each width."""
    teacher_logits: np.ndarray
    vocab_size: int

    def batches(self, *, padded_to: int | None = None) -> list[HostBatch]:
        """All of them, at their own widths or all padded to one."""
        split = self.split
        if padded_to:
            split = dataclasses.replace(split, widths=(padded_to,))
        return [
            collate(split, index, len(index), {"teacher_logits": self.teacher_logits})
            for index in self.plan
        ]

    def _width(self, index: np.ndarray) -> int:
        return self.split.widths[self.split.groups[index[0]]]

    def of_width(self, width: int) -> "Epoch":
        """The part of the epoch that is of one width."""
        return self._replace(plan=[i for i in self.plan if self._width(i) == width])

    @property
    def description(self) -> dict[str, Any]:
        """What a result says about its data."""
        widths = [self._width(index) for index in self.plan]
        return {
            "data": self.origin,
            "batch_size": len(self.plan[0]),
            "batches_of_width": {w: widths.count(w) for w in sorted(set(widths))},
        }

    def first_of_widths(self) -> "Epoch":
        """One batch of each width, which is one of each shape there is."""
        first = {self._width(index): index for index in reversed(self.plan)}
        return self._replace(plan=[first[width] for width in sorted(first)])


def first_epoch(experiment: Experiment) -> Epoch:
    """The first epoch of an experiment, in its order."""
    assert isinstance(experiment.data, TextTask)
    corpus = sources.load(experiment.data)
    with tempfile.TemporaryDirectory() as directory:
        data = experiment.data.prepare(corpus, pathlib.Path(directory))
    assert isinstance(data.train, Encoded)
    plan = plan_epoch(
        data.train.groups,
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        epoch=0,
    )
    shape = (len(data.train), experiment.data.target.num_outputs)
    return Epoch(
        origin=corpus.origin,
        split=data.train,
        plan=[index for index in plan if len(index) == experiment.batch_size],
        teacher_logits=np.random.default_rng(0).normal(0, 2, shape).astype(np.float32),
        vocab_size=data.vocab_size,
    )


def fresh_student(experiment: Experiment, epoch: Epoch) -> tuple[Bert, Params]:
    """The student's sizes and its initial parameters, on the host."""
    assert isinstance(experiment.student, Bert)
    bert = dataclasses.replace(experiment.student, vocab_size=epoch.vocab_size)
    model = bert.build(experiment.data.target.num_outputs)
    params = jax.jit(model.init)(jax.random.key(experiment.seed), {})
    return bert, jax.device_get(params)


def without_dropout(bert: Bert) -> Bert:
    """The same network with nothing random in it."""
    return dataclasses.replace(bert, dropout=0.0, attention_dropout=0.0)


class Trains(Protocol):
    """One side of a comparison."""

    def prepare(self, batches: Iterable[HostBatch]) -> list[Any]: ...

    def run(self, batches: Iterable[Any]) -> None: ...


def block_runner(
    trainer: Trains, blocks: Sequence[Sequence[HostBatch]]
) -> Callable[[int], None]:
    """A contender for `measure.race`; the batches are prepared here, untimed."""
    prepared = [trainer.prepare(block) for block in blocks]
    return lambda i: trainer.run(prepared[i])


def blocks_of(
    batches: Sequence[HostBatch], num_steps: int
) -> list[Sequence[HostBatch]]:
    """Consecutive batches, `num_steps` a block; what is over is left out."""
    num_steps = min(num_steps, len(batches))
    starts = range(0, len(batches) - num_steps + 1, num_steps)
    return [batches[start : start + num_steps] for start in starts]


def examples_in(blocks: Sequence[Sequence[HostBatch]]) -> list[int]:
    """Unmasked examples of every block."""
    return [sum(int(batch["mask"].sum()) for batch in block) for block in blocks]


class Trainer:
    """Our own side: the step as `kd.run.fit` builds it, and its state."""

    def __init__(self, experiment: Experiment, bert: Bert, params: Params):
        self._mesh = data_mesh()
        model = bert.build(experiment.data.target.num_outputs)
        training = Offline().build(
            Setting(
                {"student": model},
                (None,),
                experiment.objective,
                experiment.optimizer.build(experiment.num_steps),
            )
        )
        num_outputs = experiment.data.target.num_outputs
        example: Any = {
            "tokens": np.zeros((1, 1), np.int32),
            "token_mask": np.ones((1, 1), bool),
            "teacher_logits": np.zeros((1, num_outputs), np.float32),
        }
        key = jax.random.key(experiment.seed)
        state = training.init(key, {"student": params}, None, example)
        self._state = replicate(state, self._mesh)
        self._step = training.step
        self._apply = jax.jit(model.apply)

    def prepare(self, batches: Iterable[HostBatch]) -> list[Any]:
        """The batches in the device's memory."""
        return [shard_batch(batch, self._mesh) for batch in batches]

    def logits(self, batch: Any) -> jax.Array:
        """What the network says, with dropout off."""
        return self._apply(self._state.params["student"], batch, None).logits

    def step(self, batch: Any) -> Metrics:
        self._state, metrics = self._step(self._state, None, batch)
        return metrics

    def run(self, batches: Iterable[Any]) -> None:
        """Takes a step on each batch, and returns when the last one is done."""
        for batch in batches:
            self.step(batch)
        jax.block_until_ready(self._state)
