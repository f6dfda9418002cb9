"""The training loop: the one place where steps meet the world.

The order is part of the contract, because resuming depends on it. For every step:
evaluate if due, save if due, take the batch, dispatch the step. Metrics are fetched
in blocks, so that the device never waits for the host.
"""

import dataclasses
import statistics
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
from kd.errors import UserError
from kd.train.checkpoint import Checkpoints
from kd.train.mesh import shard_batch
from kd.train.metrics_log import MetricsLog
from kd.train.signals import Interrupted, StopSignals
from kd.types import Params, Training, TrainState

_FETCH_EVERY = 32
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
) -> tuple[TrainState, float]:
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

    Returns:
        The final state, and the training examples per second: the median over
        blocks of steps, without evaluation, saving and compilation.

    Raises:
        Interrupted: SIGTERM or SIGINT came; the state is saved.
        UserError: a loss or gradient is not finite.
    """
    restored, problems = checkpoints.restore(state)
    for problem in problems:
        say(problem)
    if restored is not None:
        state = restored
    elif problems:
        say("no checkpoint is whole; starting from the beginning")
    start = int(state.step)
    log.truncate(after=start)
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
            pace, learning_rate, checkpoints, log, bar, batches.batch_size, say
        )
        source: Iterator = batches.from_step(start, pace.num_steps)
        for step in range(start, pace.num_steps + 1):
            last = step == pace.num_steps
            if step > start and (last or step % pace.evaluate_every == 0):
                block.flush()
                _check_parameters(state, checkpoints)
                found = evaluate(state.params)
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
                checkpoints.save(state)
            if stopped_by and not last:
                goes_on = "the same command goes on from there"
                raise Interrupted(
                    stopped_by,
                    f"at step {step}, which is saved; {goes_on}"
                    if step > start
                    else f"before step {step + 1}; {goes_on}",
                )
            if last:
                break
            block.begin()
            batch = next(source)
            examples = int(np.sum(batch["mask"]))
            state, metrics = training.step(
                state, teacher_params, shard_batch(batch, mesh)
            )
            block.add(step + 1, examples, metrics)
    return state, block.examples_per_second


class _Block:
    """Metrics of the steps since the last fetch, still on the device."""

    def __init__(self, pace, learning_rate, checkpoints, log, bar, batch_size, say):
        self._pace, self._learning_rate = pace, learning_rate
        self._checkpoints, self._log, self._bar = checkpoints, log, bar
        self._batch_size = batch_size
        self._say = say
        self._warned: set[str] = set()
        self._steps = []
        self._rates = []
        self._started = time.perf_counter()
        self._rate_now = 0.0

    @property
    def examples_per_second(self) -> float:
        # The last block is mostly a short one, and in a short run the only one.
        return statistics.median(self._rates or [self._rate_now])

    def begin(self):
        if not self._steps:
            self._started = time.perf_counter()

    def add(self, step, examples, metrics):
        self._steps.append((step, examples, metrics))
        if len(self._steps) == _FETCH_EVERY:
            self.flush()

    def flush(self):
        if not self._steps:
            return
        fetched = jax.device_get([metrics for _, _, metrics in self._steps])
        seconds = time.perf_counter() - self._started
        self._rate_now = sum(n for _, n, _ in self._steps) / seconds
        if len(self._steps) == _FETCH_EVERY:
            self._rates.append(self._rate_now)
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
                        "examples_per_second": round(self._rate_now, 1),
                    }
                )
        self._bar.update(len(self._steps) * self._batch_size)
        self._bar.set_postfix(loss=f"{float(fetched[-1]['loss']):.3f}")
        self._steps = []

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
    return UserError(
        f"{what}; {good}; to try a smaller optimizer.learning_rate choose another "
        "folder with RUNS="
    )
