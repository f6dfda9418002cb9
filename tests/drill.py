"""Kills a run again and again; in the end it is bit for bit one that was left alone.

    make drill KILLS=100
    make drill KILLS=20 PROCESSES=2

The run trains a teacher by its recipe, caches its answers, and has two networks learn
from each other and from the teacher. It is killed at moments that a seeded generator
draws, by SIGKILL or SIGTERM in turn, started again, and killed again until it is done;
then a new one is begun, until there have been as many kills as were asked for.

Of several processes one is killed, or all are, or one is told to stop: the others must
end within a minute. The last run is gone on with by one process, and is the same but
for rounding.
"""

import argparse
import dataclasses
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]


def experiment():
    """A mutual pair with a teacher, on the bundled corpus."""
    import jax
    import jax.numpy as jnp
    from conftest import tiny_experiment

    from kd.divergences import KL, SinKD
    from kd.objective import CrossEntropy
    from kd.procedures.procedure import Procedure
    from kd.procedures.step import gradient_step
    from kd.types import Training, TrainState

    @dataclasses.dataclass(frozen=True)
    class Taught(Procedure):
        """Student and peer learn from the labels, the teacher and each other."""

        def learners(self, student):
            return {"student": student, "peer": dataclasses.replace(student, width=4)}

        def build(self, setting):
            names = ["student", "peer"]
            ce, kl, sinkd = CrossEntropy(), KL(), SinKD()

            def init(key, learners, teacher_params, batch):
                params = {**learners, "objective": ()}
                return TrainState(
                    step=jnp.int32(0),
                    params=params,
                    opt_state=setting.optimizer.init(params),
                    key=key,
                )

            def terms(params, teacher_params, batch, key, step):
                taught = setting.consult(teacher_params, batch)
                logits = [
                    setting.learners[name]
                    .apply(params[name], batch, jax.random.fold_in(key, i))
                    .logits
                    for i, name in enumerate(names)
                ]
                mask = batch["mask"]
                losses = []
                for own, other in (logits, logits[::-1]):
                    each = (
                        ce(own, batch["labels"], where=mask)
                        + kl(own, other, where=mask)
                        + sinkd(own, taught.logits, where=mask)
                    )
                    losses.append(jnp.sum(each) / jnp.sum(mask))
                return losses, {"loss": losses[0] + losses[1]}

            step = gradient_step(
                terms, setting, names=names, weights=lambda step: [1.0, 1.0]
            )
            return Training(init, step)

    return dataclasses.replace(tiny_experiment(), procedure=Taught(), evaluate_every=10)


def work(runs: pathlib.Path, coordinator: str, processes: int, process: int) -> int:
    """The run itself, in a process of its own."""
    from kd import hosts, run
    from kd.train import signals
    from kd.train.mesh import data_mesh

    ours = hosts.Group(coordinator, processes, process) if processes > 1 else None
    hosts.join(ours, runs / "hosts" / f"{process}.log", patience=30)
    place = run.Workspace(runs, "mini", data_mesh(), print)
    status = 0
    try:
        run.run(experiment(), "drill", place)
    except signals.Interrupted as interrupted:
        print(interrupted)
        status = interrupted.exit_status
    except Exception as error:
        if not hosts.several():
            raise
        return hosts.fail_of(error)
    hosts.leave()
    return status


def outcome(runs: pathlib.Path) -> tuple:
    """What must be the same: weights, predictions, the log without its clocks."""
    from kd.train import metrics_log

    directory = runs / "drill" / "0"
    rows = metrics_log.read(directory / "metrics.jsonl")
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in rows]
    with np.load(directory / "predictions.npz", allow_pickle=False) as arrays:
        predictions = {name: arrays[name].tobytes() for name in arrays.files}
    weights = [
        path.read_bytes() for path in sorted(runs.glob("**/model/model.safetensors"))
    ]
    return rows, predictions, weights


def start(runs: pathlib.Path, processes: int) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    place = ["--work", str(runs), "--coordinator", coordinator]
    place += ["--processes", str(processes)]
    return [
        subprocess.Popen(
            [sys.executable, __file__, *place, "--process", str(i)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for i in range(processes)
    ]  # fmt: skip


def ended(started: list[subprocess.Popen], seconds: float | None) -> bool:
    """Whether all of them end within so many seconds."""
    ends = None if seconds is None else time.monotonic() + seconds
    for process in started:
        try:
            process.wait(None if ends is None else max(ends - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return False
    return True


def drill(kills: int, processes: int = 1, seed: int = 0) -> int:
    """Kills so many times; returns how many runs ended otherwise than they should."""
    moments = random.Random(seed)
    wrong = done = begun = 0
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        # Twice, since the first one compiles what the others find compiled.
        for name in ("first", "whole"):
            begin = time.monotonic()
            started = start(base / name, processes)
            errors = [process.communicate()[1] for process in started]
            if any(process.returncode for process in started):
                print(*errors)
                return 1
            whole = time.monotonic() - begin
        expected = outcome(base / "whole")
        if outcome(base / "first") != expected:
            print("two runs that were left alone differ")
            return 1
        while done < kills:
            begun += 1
            runs = base / "killed"
            while True:
                started = start(runs, processes)
                number, sent = (signal.SIGKILL, signal.SIGTERM)[done % 2], False
                if not ended(
                    started, moments.uniform(0, whole) if done < kills else None
                ):
                    everyone, sent = done % 4 == 2, True
                    for process in started if everyone else [moments.choice(started)]:
                        process.send_signal(number)
                    done += 1
                    # One that is asked to stop while nothing trains yet goes on so far.
                    limit = whole if number == signal.SIGTERM else 0
                    if not ended(started, limit + 60):
                        print("a process hangs")
                        wrong += 1
                        for process in started:
                            process.kill()
                errors = [process.communicate()[1] for process in started]
                statuses = {process.returncode for process in started}
                stopped = {0, -number, 128 + number, 130} if sent else {0}
                if sent and number == signal.SIGKILL and processes > 1:
                    stopped.add(1)  # of a process whose partner was killed
                if not statuses <= stopped:
                    print(*errors)
                    wrong += 1
                    break
                if statuses == {0}:
                    break
            if statuses == {0} and outcome(runs) != expected:
                wrong += 1
                print(f"run {begun} ended otherwise than the one left alone")
            print(f"{done} kills in {begun} runs, {wrong} wrong", flush=True)
            shutil.rmtree(runs, ignore_errors=True)
        if processes > 1:
            wrong += not goes_on_alone(base / "other", processes, whole, expected)
    return wrong


def goes_on_alone(
    runs: pathlib.Path, processes: int, whole: float, expected: tuple
) -> bool:
    """Whether one process ends what several began, the same but for rounding."""
    started = start(runs, processes)
    if not ended(started, 0.8 * whole):
        for process in started:
            process.kill()
    for process in [*started, *start(runs, 1)]:
        process.communicate()
    rows, *_ = outcome(runs)
    apart = max(
        abs(value - row[name])
        for row, other in zip(rows, expected[0], strict=True)
        for name, value in other.items()
        if isinstance(value, float)
    )
    print(f"gone on with by one process: {apart:.1e} apart")
    return apart < 1e-6


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--coordinator", default="")
    parser.add_argument("--process", type=int, default=0)
    options = parser.parse_args()
    import conftest  # noqa: F401  JAX reads the environment that it sets.

    if options.work:
        whom = options.coordinator, options.processes, options.process
        sys.exit(work(options.work, *whom))
    sys.exit(min(drill(options.kills, options.processes), 1))
