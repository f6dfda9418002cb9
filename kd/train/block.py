"""Steps that are dispatched, and what becomes of their metrics.

Metrics are fetched in blocks, so that the device never waits for the host; a block is
some seconds of work at most, because steps that are dispatched cannot be called back.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from kd import hosts
from kd.report.quantities import duration
from kd.train.checkpoint import Checkpoints
from kd.train.members import Member, Members
from kd.train.metrics_log import MetricsLog
from kd.train.speed import Speed
from kd.types import TrainState

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


class Block:
    """Metrics of the steps since the last fetch, still on the device.

    How long a block takes is known from the blocks before, for every shape of batches:
    the first step of a shape, which is compiled, and the second, which tells how long
    it takes, are blocks of their own.

    Args:
        pace: of the run.
        learning_rate: of every step, for the logs.
        members: the runs that the steps take further. Metrics of several have an axis
            of these.
        checkpoints: where a state of before is, for what is told.
        bar: of progress, in examples of each member.
        batch_size: of each member.
        say: shows a line to the person who waits.
        speed: takes up examples per second, those of each member.
        clock: seconds from any moment on.
    """

    def __init__(
        self,
        pace: Pace,
        learning_rate: Callable[[int], Any],
        members: Members,
        checkpoints: Checkpoints,
        bar: tqdm.tqdm,
        batch_size: int,
        say: Callable[[str], Any],
        speed: Speed,
        clock: Callable[[], float],
    ):
        self._pace, self._learning_rate = pace, learning_rate
        self._members, self._checkpoints = members, checkpoints
        self._bar, self._batch_size = bar, batch_size
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
        """After it is dispatched; `examples` are those of all members."""
        self._steps.append((step, examples / len(self._members), metrics))
        seconds = self._seconds_per_step.get(self._shapes[-1])
        self._seconds_ahead += seconds or 0.0
        if (
            seconds is None
            or len(self._steps) == _FETCH_EVERY
            or self._seconds_ahead >= _SECONDS_AHEAD
        ):
            self.flush(whole=seconds is not None)

    def flush(self, *, whole=False):
        """Waits for the steps; `whole` is a block that nothing cut short.

        Raises:
            Diverged: of the last member that was left.
        """
        if not self._steps:
            return
        fetched = jax.device_get([metrics for _, _, metrics in self._steps])
        # The length of the blocks to come depends on it: all processes have the same.
        seconds = hosts.of_first(lambda: max(self._clock() - self._started, 1e-9))
        rate = sum(n for _, n, _ in self._steps) / seconds
        compiled = self._shapes[0] not in self._seconds_per_step
        if not compiled or not self._speed.rest:
            self._speed.add(rate, whole=whole)
        for (step, _, _), metrics in zip(self._steps, fetched, strict=True):
            columns = {name: np.ravel(value) for name, value in metrics.items()}
            for i, member, log in self._members.going_on:
                mine = {name: float(column[i]) for name, column in columns.items()}
                if what := _not_finite(mine):
                    self._leave(member, f"{what} at step {step}")
                    continue
                self._check_plans(step, mine)
                if step % self._pace.log_every == 0 or step == self._pace.num_steps:
                    self._write(log, step, mine, rate)
        loss = np.ravel(fetched[-1]["loss"])
        loss = float(np.mean([loss[i] for i, _, _ in self._members.going_on]))
        self._bar.update(len(self._steps) * self._batch_size)
        self._bar.set_postfix(loss=f"{loss:.3f}")
        if self._bar.disable:
            self._tell(self._steps[-1][0], loss, rate, seconds if compiled else 0.0)
        self._learn_pace(seconds)
        self._steps, self._shapes, self._seconds_ahead = [], [], 0.0

    def check_parameters(self, state: TrainState) -> None:
        """Checks, after `flush`, that a run could go on from the state.

        Raises:
            Diverged: of the last member that was left.
        """
        finite = _finite(state.params, len(self._members))
        for i, member, _ in self._members.going_on:
            if not finite[i]:
                self._leave(
                    member, f"a parameter is not finite after step {state.step}"
                )

    def _write(
        self, log: MetricsLog, step: int, metrics: dict[str, float], rate: float
    ) -> None:
        epoch = step / self._pace.steps_per_epoch
        log.write(
            {"step": step, "epoch": epoch, "split": "train"}
            | metrics
            | {
                "learning_rate": float(self._learning_rate(step - 1)),
                "examples_per_second": round(rate, 1),
            }
        )

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

    def _leave(self, member: Member, what: str) -> None:
        # Those of several go on without it, and so do their checkpoints.
        good = f"; {self._last_good()}" if len(self._members) == 1 else ""
        self._bar.clear()
        self._members.leave(
            member,
            f"{what}{good}; to try a smaller optimizer.learning_rate choose another "
            "folder with RUNS=",
            self._say,
        )

    def _last_good(self) -> str:
        saved = self._checkpoints.steps
        if not saved:
            return "there is no checkpoint yet"
        return (
            f"the last checkpoint, known to be finite, is that of step {saved[-1]} in "
            f"{self._checkpoints.directory}"
        )


def _not_finite(metrics: dict[str, float]) -> str:
    """What of the metrics is not finite; "" if nothing."""
    wrong = [name for name, value in metrics.items() if not np.isfinite(value)]
    # A term of the loss is the cause; the sum and the gradient follow it.
    terms = [name for name in wrong if name.startswith("loss/")] or wrong
    return " and ".join(f"{name} is {metrics[name]}" for name in terms)


@jax.jit
def _all_finite(params):
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]))


@jax.jit
def _each_finite(params):
    rows = [jnp.isfinite(x) for x in jax.tree.leaves(params)]
    return jnp.all(jnp.array([x.reshape(len(x), -1).all(axis=1) for x in rows]), axis=0)


def _finite(params: Any, num: int) -> list[bool]:
    """Whether all parameters of each of so many members are."""
    return [bool(_all_finite(params))] if num == 1 else _each_finite(params).tolist()
