"""The training loop: the one place where steps meet the world.

The order is part of the contract, because resuming depends on it. For every step:
evaluate if due, save if due, take the batch, dispatch the step. Metrics are fetched
in blocks, so that the device never waits for the host; a block is some seconds of work
at most, because steps that are dispatched cannot be called back.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from jax.sharding import Mesh

from kd.data.pipeline import TrainingBatches
from kd.errors import Diverged
from kd.report.quantities import duration
from kd.train.checkpoint import Checkpoints
from kd.train.mesh import shard_batch
from kd.train.metrics_log import MetricsLog
from kd.train.signals import Interrupted, StopSignals
from kd.train.speed import Speed
from kd.types import Params, Training, TrainState

_FETCH_EVERY = 32
_SECONDS_AHEAD = 2.0
"""Of work that is dispatched before its metrics are fetched: one who asks to stop waits
for it, and a machine that is taken away leaves 30 seconds for everything."""
_TELL_EVERY = 30.0
_SLOW_COMPILATION = 5.0
"""Seconds; where there is no bar, progress and slow compilations are told in lines."""
_MARGINAL_ERROR = 0.25
"""Of a transport plan that is worth a warning; the published settings of SinKD stay
below, though they are far from convergence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pace:
    """How long a run is, and how often something else than a step happens.

    All in steps; `evaluate_every` and `save_every` count from the start of the run.
    """

    num_steps: int
    steps_per_epoch: int
    evaluate_every: int
    save_every: int
    log_every: int


def train(
    training: Training,
    state: TrainState,
    teacher_params: Any,
    batches: TrainingBatches,
    *,
    pace: Pace,
    mesh: Mesh,
    learning_rate: optax.Schedule,
    evaluate: Callable[[Params], dict[str, float]],
    checkpoints: Checkpoints,
    log: MetricsLog,
    say: Callable[[str], None],
    speed: Speed,
    clock: Callable[[], float] = time.monotonic,
) -> TrainState:
    """Repeats the step to the end, from the newest checkpoint if there is one.

    Args:
        training: whose step is repeated.
        state: to start from where there is no checkpoint.
        teacher_params: handed to every step.
        batches: batch i is that of step i.
        pace: see there.
        mesh: that batches are sharded over.
        learning_rate: of every step, for the log.
        evaluate: the dev metrics of the state's parameters.
        checkpoints: where the state is saved.
        log: where metrics go.
        say: shows a line to the person who waits.
        speed: takes up seconds and examples per second, those of earlier parts of the
            run included.
        clock: seconds from any moment on.

    Returns:
        The final state.

    Raises:
        Interrupted: SIGTERM or SIGINT came; the state is saved.
        Diverged: a loss or gradient is not finite.
    """
    begun = clock()
    restored, problems = checkpoints.restore(state)
    for problem in problems:
        say(problem)
    if restored is not None:
        state = restored
        speed.go_on_from(checkpoints.notes)
    elif problems:
        say("no checkpoint is whole; starting from the beginning")
    seconds_before = speed.seconds
    start = int(state.step)
    for problem in log.truncate(after=start):
        say(problem)
    if start >= pace.log_every and not log.path.stat().st_size:
        say(f"{log.path} has lost the rows up to step {start}; figures will lack them")
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
        block = _Block(
            pace, learning_rate, checkpoints, log, bar, batches.batch_size, say,
            speed, clock,
        )  # fmt: skip
        source: Iterator = batches.from_step(start, pace.num_steps)
        for step in range(start, pace.num_steps + 1):
            last = step == pace.num_steps
            due = last or step % pace.evaluate_every == 0
            # Of the step that a run resumes at, where a stop left it out.
            if step and due and not log.has_evaluation(step):
                block.flush()
                _check_parameters(state, checkpoints)
                found = received.unless_stopped(
                    lambda state=state: evaluate(state.params)
                )
                if found is not None:
                    log.write(
                        {"step": step, "epoch": step / pace.steps_per_epoch}
                        | {"split": "dev"}
                        | found
                    )
                    described = ", ".join(f"{k} {v:.4f}" for k, v in found.items())
                    bar.clear()
                    say(f"step {step}/{pace.num_steps}: dev {described}")
            stopped_by = received.number
            if step > start and (last or stopped_by or step % pace.save_every == 0):
                block.flush()
                _check_parameters(state, checkpoints)
                log.sync()
                speed.seconds = seconds_before + clock() - begun
                checkpoints.save(state, speed.to_notes())
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


class _Block:
    """Metrics of the steps since the last fetch, still on the device.

    How long a block takes is known from the blocks before, for every shape of batches:
    the first step of a shape, which is compiled, and the second, which tells how long
    it takes, are blocks of their own.
    """

    def __init__(
        self, pace, learning_rate, checkpoints, log, bar, batch_size, say, speed, clock
    ):
        self._pace, self._learning_rate = pace, learning_rate
        self._checkpoints, self._log, self._bar = checkpoints, log, bar
        self._batch_size = batch_size
        self._say, self._speed, self._clock = say, speed, clock
        self._warned: set[str] = set()
        self._steps = []
        self._shapes = []
        # None: compiled and not timed yet.
        self._seconds_per_step: dict[tuple, float | None] = {}
        self._seconds_ahead = 0.0
        self._started = clock()
        self._told_at: float | None = None
        self._first = self._started, 0

    def begin(self, shapes):
        """Before the step of a batch of these shapes is dispatched."""
        if self._seconds_per_step.get(shapes) is None:
            self.flush()
        if not self._seconds_per_step:
            self._say("compiling the training step; the first step waits for it")
        self._shapes.append(shapes)
        if not self._steps:
            self._started = self._clock()

    def add(self, step, examples, metrics):
        self._steps.append((step, examples, metrics))
        seconds = self._seconds_per_step.get(self._shapes[-1])
        self._seconds_ahead += seconds or 0.0
        if (
            seconds is None
            or len(self._steps) == _FETCH_EVERY
            or self._seconds_ahead >= _SECONDS_AHEAD
        ):
            self.flush(whole=seconds is not None)

    def flush(self, *, whole=False):
        """Waits for the steps; `whole` is a block that nothing cut short."""
        if not self._steps:
            return
        fetched = jax.device_get([metrics for _, _, metrics in self._steps])
        seconds = max(self._clock() - self._started, 1e-9)
        rate = sum(n for _, n, _ in self._steps) / seconds
        compiled = self._shapes[0] not in self._seconds_per_step
        if not compiled or not self._speed.rest:
            self._speed.add(rate, whole=whole)
        for (step, _, _), metrics in zip(self._steps, fetched, strict=True):
            self._check_finite(step, metrics)
            self._check_plans(step, metrics)
            if step % self._pace.log_every == 0 or step == self._pace.num_steps:
                self._log.write(
                    {
                        "step": step,
                        "epoch": step / self._pace.steps_per_epoch,
                        "split": "train",
                    }
                    | {name: float(value) for name, value in metrics.items()}
                    | {
                        "learning_rate": float(self._learning_rate(step - 1)),
                        "examples_per_second": round(rate, 1),
                    }
                )
        loss = float(fetched[-1]["loss"])
        self._bar.update(len(self._steps) * self._batch_size)
        self._bar.set_postfix(loss=f"{loss:.3f}")
        if self._bar.disable:
            self._tell(self._steps[-1][0], loss, rate, seconds if compiled else 0.0)
        self._learn_pace(seconds)
        self._steps, self._shapes, self._seconds_ahead = [], [], 0.0

    def _learn_pace(self, seconds):
        shapes, known = self._shapes[0], self._seconds_per_step
        if shapes not in known:
            known[shapes] = None
        elif known[shapes] is None:
            known[shapes] = seconds
        else:
            for each in set(self._shapes):
                known[each] *= seconds / self._seconds_ahead

    def _tell(self, step, loss, rate, compilation):
        now = self._clock()
        progress = f"step {step}/{self._pace.num_steps}"
        if compilation > _SLOW_COMPILATION:
            self._say(
                f"{progress}: compiled for batches of this shape in "
                f"{duration(compilation)}"
            )
        if self._told_at is None:
            # What is left takes no first compilation.
            self._told_at, self._first = now, (now, step)
        elif now - self._told_at >= _TELL_EVERY:
            since, first = self._first
            left = (now - since) / (step - first) * (self._pace.num_steps - step)
            self._told_at = now
            self._say(
                f"{progress}: loss {loss:.3f}, {rate:.0f} examples/s, "
                f"about {duration(left)} left"
            )

    def _check_finite(self, step, metrics):
        wrong = [name for name, value in metrics.items() if not np.isfinite(value)]
        if wrong:
            # A term of the loss is the cause; the sum and the gradient follow it.
            terms = [name for name in wrong if name.startswith("loss/")] or wrong
            what = " and ".join(f"{name} is {float(metrics[name])}" for name in terms)
            raise _not_finite(f"{what} at step {step}", self._checkpoints)

    def _check_plans(self, step, metrics):
        for name, value in metrics.items():
            loss, _, metric = name.rpartition("/")
            far = metric == "marginal_error" and value > _MARGINAL_ERROR
            if not far or name in self._warned:
                continue
            self._warned.add(name)
            self._bar.clear()
            self._say(
                f"{loss}: the transport plan of step {step} misses its marginals by "
                f"{value:.2g} (2 would be all of the mass); more num_iters or a larger "
                f"epsilon would bring it nearer; {name} in the metrics has all steps"
            )


@jax.jit
def _finite(params):
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]))


def _check_parameters(state, checkpoints):
    """No checkpoint is saved that no run could go on from."""
    if not _finite(state.params):
        what = f"a parameter is not finite after step {state.step}"
        raise _not_finite(what, checkpoints)


def _not_finite(what, checkpoints):
    saved = checkpoints.steps
    good = (
        f"the last checkpoint, known to be finite, is that of step {saved[-1]} in "
        f"{checkpoints.directory}"
        if saved
        else "there is no checkpoint yet"
    )
    return Diverged(
        f"{what}; {good}; to try a smaller optimizer.learning_rate choose another "
        "folder with RUNS="
    )
