"""The training loop: the one place where steps meet the world.

The order is part of the contract, because resuming depends on it. For every step:
evaluate if due, save if due, take the batch, dispatch the step.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import optax
import tqdm
from jax.sharding import Mesh

from kd.train.block import Block, Pace
from kd.train.checkpoint import Checkpoints
from kd.train.members import Member, Members
from kd.train.mesh import shard_batch
from kd.train.signals import Interrupted, StopSignals
from kd.train.speed import Speed
from kd.types import Params, Training, TrainState


@runtime_checkable
class Batches(Protocol):
    """What is learnt from, step by step."""

    @property
    def batch_size(self) -> int:
        """Examples of a batch, of each run."""
        ...

    def from_step(self, start: int, stop: int) -> Iterator[Mapping[str, np.ndarray]]:
        """The batches of steps start, ..., stop - 1."""
        ...


def train(
    training: Training,
    state: TrainState,
    teacher_params: Any,
    batches: Batches,
    *,
    pace: Pace,
    mesh: Mesh,
    learning_rate: optax.Schedule,
    evaluate: Callable[[Params, int], dict[str, float]],
    checkpoints: Checkpoints,
    members: Sequence[Member],
    say: Callable[[str], None],
    speed: Speed,
    clock: Callable[[], float] = time.monotonic,
) -> TrainState:
    """Repeats the step to the end, from the newest checkpoint if there is one.

    Several runs that a step takes further at once (`kd.train.stacked`) are evaluated
    and logged one by one. One that diverges is left out from then on.

    Args:
        training: whose step is repeated.
        state: to start from where there is no checkpoint.
        teacher_params: handed to every step.
        batches: batch i is that of step i.
        pace: see there.
        mesh: that batches are sharded over.
        learning_rate: of every step, for the logs.
        evaluate: the dev metrics of the state's parameters, those of the member at a
            place.
        checkpoints: where the state is saved.
        members: the runs, one or several: where metrics go, and who diverged.
        say: shows a line to the person who waits.
        speed: takes up seconds and examples per second, those of earlier parts of the
            run included.
        clock: seconds from any moment on.

    Returns:
        The final state.

    Raises:
        Interrupted: SIGTERM or SIGINT came; the state is saved.
        Diverged: a loss or gradient is not finite, of the last member that was left.
    """
    begun = clock()
    together = Members(members)
    restored, problems = checkpoints.restore(state)
    for problem in problems:
        say(problem)
    if restored is not None:
        state = restored
        speed.go_on_from(checkpoints.notes)
        together.go_on_from(checkpoints.notes)
    elif problems:
        say("no checkpoint is whole; starting from the beginning")
    seconds_before = speed.seconds
    start = int(state.step)
    for problem in together.truncate(after=start):
        say(problem)
    for _, _, log in together.going_on:
        if start >= pace.log_every and log.is_empty():
            say(
                f"{log.path} has lost the rows up to step {start}; figures will lack "
                "them"
            )
    if start:
        say(f"resuming after step {start} of {pace.num_steps}")

    with (
        StopSignals() as received,
        tqdm.tqdm(
            total=pace.num_steps * batches.batch_size,
            initial=start * batches.batch_size,
            unit=" examples",
            unit_scale=True,
            disable=None,
            dynamic_ncols=True,
            smoothing=0.1,
        ) as bar,
    ):
        block = Block(
            pace, learning_rate, together, checkpoints, bar, batches.batch_size, say,
            speed, clock,
        )  # fmt: skip
        source: Iterator = batches.from_step(start, pace.num_steps)
        for step in range(start, pace.num_steps + 1):
            last = step == pace.num_steps
            due = last or step % pace.evaluate_every == 0
            # Of the step that a run resumes at, where a stop left it out.
            if step and due and together.lacking_evaluation(step):
                block.flush()
                block.check_parameters(state)
                lacking = together.lacking_evaluation(step)
                found = received.unless_stopped(
                    lambda state=state, lacking=lacking: [
                        evaluate(state.params, i) for i, _ in lacking
                    ]
                )
                if found:
                    for (_, log), row in zip(lacking, found, strict=True):
                        log.write(
                            {"step": step, "epoch": step / pace.steps_per_epoch}
                            | {"split": "dev"}
                            | row
                        )
                    bar.clear()
                    say(f"step {step}/{pace.num_steps}: dev {_described(found)}")
            stopped_by = received.asked()
            if step > start and (last or stopped_by or step % pace.save_every == 0):
                block.flush()
                block.check_parameters(state)
                together.sync()
                speed.seconds = seconds_before + clock() - begun
                checkpoints.save(state, speed.to_notes() | together.to_notes())
            if stopped_by:
                goes_on = "the same command goes on from there"
                raise Interrupted(
                    stopped_by,
                    f"at step {step}, which is saved; {goes_on}"
                    if step > start or start
                    else f"before step {step + 1}; {goes_on}",
                )
            if last:
                break
            batch = next(source)
            shapes = tuple(np.shape(x) for x in jax.tree.leaves(batch))
            block.begin(shapes)
            examples = int(np.sum(batch["mask"]))
            state, metrics = training.step(
                state, teacher_params, shard_batch(batch, mesh)
            )
            block.add(step + 1, examples, metrics)
    speed.seconds = seconds_before + clock() - begun
    return state


def _described(found: Sequence[dict[str, float]]) -> str:
    """An evaluation in a line; of several runs, their mean."""
    means = {name: np.mean([row[name] for row in found]) for name in found[0]}
    described = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
    return described + (f", mean of {len(found)} runs" if len(found) > 1 else "")
