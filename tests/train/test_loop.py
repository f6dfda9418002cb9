"""The loop with a clock of its own and a device that works only while waited for."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd.data.pipeline import TrainingBatches
from kd.train import metrics_log
from kd.train.block import Pace
from kd.train.checkpoint import Checkpoints
from kd.train.loop import train
from kd.train.members import Member
from kd.train.mesh import data_mesh, replicate
from kd.train.metrics_log import MetricsLog
from kd.train.signals import Interrupted
from kd.train.speed import Speed
from kd.types import Training, TrainState

ROWS = 8


class Batches(TrainingBatches):
    """Batches of `ROWS` examples; of these widths in turn."""

    widths: tuple[int, ...] = ()

    def __init__(self, widths):
        object.__setattr__(self, "widths", widths)
        object.__setattr__(self, "batch_size", ROWS)

    def from_step(self, start, stop):
        for i in range(start, stop):
            width = self.widths[i % len(self.widths)]
            yield {"x": np.zeros((ROWS, width)), "mask": np.ones(ROWS, bool)}


class Device:
    """Takes seconds for every step, spent when results are fetched; compiles at once.

    Attributes:
        now: its clock.
        ahead: steps at every fetch that had been dispatched.
        before_step: called with the number of every step, from 1 on.
    """

    def __init__(self, seconds, *, compiling=20.0):
        self.seconds, self.compiling = seconds, compiling
        self.now, self.ahead, self.compiled = 0.0, [], set()
        self.pending, self.before_step = [], lambda step: None
        self.evaluating = lambda: None
        self.evaluations = 0

    def step(self, state, teacher_params, batch):
        number = int(state.step) + 1
        self.before_step(number)
        if (shape := batch["x"].shape) not in self.compiled:
            self.compiled.add(shape)
            self.now += self.compiling
        self.pending.append(self.seconds(batch["x"].shape[1]))
        return state.replace(step=state.step + 1), {"loss": jnp.float32(number)}

    def fetch(self, tree):
        if self.pending:
            self.ahead.append(len(self.pending))
        self.now += sum(self.pending)
        self.pending = []
        return jax.tree.map(np.asarray, tree)

    def evaluate(self, params, place):
        self.evaluating()
        self.evaluations += 1
        self.now += 7.0
        return {"accuracy": 0.5}


class Folder:
    """Trains in a folder, on a device; has what was said, and the speed."""

    def __init__(self, path):
        self.path = path / "metrics.jsonl"
        self.said: list[str] = []
        self.speed = Speed()

    def __call__(
        self, device, num_steps, *, widths=(4,), save_every=1000, evaluate_every=1000
    ):
        self.said, self.speed = [], Speed()
        state = TrainState(
            step=jnp.int32(0),
            params={"student": jnp.zeros(3)},
            opt_state=(),
            key=jax.random.key(0),
        )
        checkpoints = Checkpoints(self.path.with_name("checkpoints"))
        log, mesh = MetricsLog(self.path), data_mesh()
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("kd.train.loop.jax.device_get", device.fetch)
                train(
                    Training(lambda *_: state, device.step),
                    replicate(state, mesh),
                    None,
                    Batches(widths),
                    pace=Pace(
                        num_steps=num_steps, steps_per_epoch=10, log_every=1,
                        evaluate_every=evaluate_every, save_every=save_every,
                    ),
                    mesh=mesh, learning_rate=optax.constant_schedule(1.0),
                    evaluate=device.evaluate, checkpoints=checkpoints,
                    members=[Member(log)], say=self.said.append, speed=self.speed,
                    clock=lambda: device.now,
                )  # fmt: skip
        finally:
            log.close()
            checkpoints.close()


@pytest.fixture
def go(tmp_path):
    return Folder(tmp_path)


def stop(*_):
    os.kill(os.getpid(), signal.SIGTERM)


def at_step(number, action):
    return lambda step: action() if step == number else None


def outcome(path):
    rows = metrics_log.read(path)
    return [{k: v for k, v in row.items() if "per_second" not in k} for row in rows]


def test_progress_is_told_every_half_minute_without_a_terminal(go):
    go(Device(lambda width: 0.5), 400)
    assert "compiling the training step" in go.said[0]
    told = [line for line in go.said if "examples/s" in line]
    # 200 s of work after the compilation.
    assert len(told) == 6
    assert told[0].startswith("step 62/400: loss 62.000, 16 examples/s, about 2 min ")
    assert all(line.endswith(" left") for line in told)


def test_slow_compilations_of_further_shapes_are_told_once_each(go):
    go(Device(lambda width: 0.01), 12, widths=(4, 8))
    slow = [line for line in go.said if "compiled" in line]
    assert [line.partition(":")[0] for line in slow] == ["step 1/12", "step 2/12"]
    go(Device(lambda width: 0.01, compiling=1.0), 24, widths=(4, 8))
    assert not [line for line in go.said if "compiled" in line]


def test_a_block_is_no_more_than_two_seconds_of_work_or_32_steps(go):
    device = Device(lambda width: 0.7)
    go(device, 40)
    assert max(device.ahead) == 3
    device = Device(lambda width: 0.001)
    go(device, 200)
    assert max(device.ahead) == 32


def test_slow_shapes_count_for_what_they_are(go):
    device = Device(lambda width: 1.5 if width == 64 else 0.05)
    go(device, 64, widths=(4, 4, 4, 4, 4, 4, 4, 64))
    assert max(device.ahead) <= 16
    # A machine that becomes slower is known to be after one block.
    slower = Device(lambda width: 0.05 if slower.now < 60 else 1.0, compiling=59)
    go(slower, 300)
    assert slower.ahead[-3:-1] == [2, 2]


def test_a_stop_is_obeyed_within_seconds(go):
    device = Device(lambda width: 1.0)
    asked = []

    def ask():
        asked.append(device.now)
        stop()

    device.before_step = at_step(21, ask)
    with pytest.raises(Interrupted, match="SIGTERM at step 21, which is saved"):
        go(device, 100)
    assert device.now - asked[0] <= 3.0


def test_a_stop_in_an_evaluation_does_not_wait_for_it(go):
    whole = Device(lambda width: 0.1)
    go(whole, 20, evaluate_every=10)
    expected, seconds = outcome(go.path), go.speed.seconds

    for path in go.path.parent.iterdir():
        path.rename(path.with_name(f"whole-{path.name}"))
    device = Device(lambda width: 0.1)
    device.evaluating = stop
    with pytest.raises(Interrupted, match="at step 10, which is saved"):
        go(device, 20, evaluate_every=10)
    assert device.evaluations == 0
    again = Device(lambda width: 0.1)
    go(again, 20, evaluate_every=10)
    assert again.evaluations == 2
    assert outcome(go.path) == expected
    # One compilation more.
    np.testing.assert_allclose(go.speed.seconds, seconds + 20, atol=0.5)


def test_a_stop_at_the_last_step_is_no_lost_wish(go):
    device = Device(lambda width: 0.1)
    device.evaluating = stop
    with pytest.raises(Interrupted, match="at step 5, which is saved"):
        go(device, 5)
    go(Device(lambda width: 0.1), 5)
    rows = metrics_log.read(go.path)
    assert [row["split"] for row in rows if row["step"] == 5] == ["train", "dev"]


def test_speed_is_that_of_all_parts(go):
    """Killed after the last checkpoint, or shortly before."""
    go(Device(lambda width: 0.5), 40)
    whole, seconds = go.speed.examples_per_second, go.speed.seconds
    assert whole == 16.0
    np.testing.assert_allclose(seconds, 20 + 40 * 0.5 + 7)
    go(Device(lambda width: 0.5), 40)  # no step is left
    assert go.speed.examples_per_second == whole
    assert go.speed.seconds == seconds and not go.speed.partial


def test_what_is_computed_twice_counts_once(go):
    class Killed(BaseException): ...

    def kill():
        raise Killed

    device = Device(lambda width: 0.5)
    device.before_step = at_step(39, kill)
    with pytest.raises(Killed):
        go(device, 40, save_every=30)
    go(Device(lambda width: 0.5), 40, save_every=30)
    # Two compilations, 40 steps, one evaluation.
    np.testing.assert_allclose(go.speed.seconds, 2 * 20 + 40 * 0.5 + 7)
    assert go.speed.examples_per_second == 16.0


def test_a_lost_log_has_its_last_evaluation_again(go):
    go(Device(lambda width: 0.5), 5)
    go.path.write_bytes(b"")
    device = Device(lambda width: 0.5)
    go(device, 5)
    assert device.evaluations == 1
    assert f"{go.path} has lost the rows up to step 5; figures" in go.said[0]
    assert [row["split"] for row in metrics_log.read(go.path)] == ["dev"]


def test_rows_can_be_read_while_the_run_goes_on(go):
    seen = []
    device = Device(lambda width: 1.0)
    device.before_step = lambda step: seen.append(len(metrics_log.read(go.path)))
    go(device, 12)
    assert seen[4] == 4 - (4 % 2) and seen[-1] >= 9
