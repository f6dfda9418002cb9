"""Kills a run again and again; in the end it is bit for bit one that was left alone.

    make drill KILLS=100

The run trains a teacher by its recipe, caches its answers, and has two networks learn
from each other and from the teacher. It is killed at moments that a seeded generator
draws, by SIGKILL or SIGTERM in turn, started again, and killed again until it is done;
then a new one is begun, until there have been as many kills as were asked for.
"""

import argparse
import dataclasses
import pathlib
import random
import shutil
import signal
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


def work(runs: pathlib.Path) -> int:
    """The run itself, in a process of its own."""
    from kd import run
    from kd.train import signals
    from kd.train.mesh import data_mesh

    place = run.Workspace(runs, "mini", data_mesh(), print)
    try:
        run.run(experiment(), "drill", place)
    except signals.Interrupted as interrupted:
        print(interrupted)
        return interrupted.exit_status
    return 0


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


def start(runs: pathlib.Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, __file__, "--work", str(runs)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def drill(kills: int, seed: int = 0) -> int:
    """Kills so many times; returns how many runs ended otherwise than they should."""
    moments = random.Random(seed)
    wrong = done = begun = 0
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        # Twice, since the first one compiles what the others find compiled.
        for name in ("first", "whole"):
            begin = time.monotonic()
            process = start(base / name)
            _, errors = process.communicate()
            if process.returncode:
                print(errors)
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
                process = start(runs)
                number = (signal.SIGKILL, signal.SIGTERM)[done % 2]
                try:
                    wait = moments.uniform(0, whole) if done < kills else None
                    process.wait(timeout=wait)
                except subprocess.TimeoutExpired:
                    process.send_signal(number)
                    done += 1
                errors = process.communicate()[1]
                stopped = (-number, 128 + number, 130)
                if process.returncode and process.returncode not in stopped:
                    print(errors)
                    wrong += 1
                    break
                if process.returncode == 0:
                    break
            if process.returncode == 0 and outcome(runs) != expected:
                wrong += 1
                print(f"run {begun} ended otherwise than the one left alone")
            print(f"{done} kills in {begun} runs, {wrong} wrong", flush=True)
            shutil.rmtree(runs, ignore_errors=True)
    return wrong


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--work", type=pathlib.Path)
    options = parser.parse_args()
    import conftest  # noqa: F401  JAX reads the environment that it sets.

    sys.exit(work(options.work) if options.work else min(drill(options.kills), 1))
