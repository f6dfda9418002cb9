"""A run that is killed and started again ends like one that never was.

Every run is a process of its own, killed by a real signal at a step of our choice.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from kd.train import metrics_log

pytestmark = pytest.mark.slow

TESTS = pathlib.Path(__file__).parent
RUN = """
import dataclasses, os, pathlib, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
import conftest
from kd import run
from kd.train import loop, signals
from kd.train.mesh import data_mesh

kill_at, number, runs = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
batches = 0
place = loop.shard_batch


def counted(batch, mesh):
    global batches
    batches += 1
    if batches == kill_at:
        for _ in range(int(sys.argv[4])):
            os.kill(os.getpid(), number)
    return place(batch, mesh)


loop.shard_batch = counted
tiny = conftest.tiny_experiment()
try:
    run.run(tiny, "tiny", run.Workspace(runs, "mini", data_mesh(), print))
except signals.Interrupted as interrupted:
    print(interrupted)
    sys.exit(interrupted.exit_status)
"""


def start(runs, kill_at=0, number=0, times=1):
    program = RUN.format(root=str(TESTS.parent), tests=str(TESTS))
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, (kill_at, number, runs, times))],
        capture_output=True,
        text=True,
        timeout=300,
        # Bit for bit in what users run: with XLA's optimizations.
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"},
    )


def outcome(runs):
    """The bytes of the weights, and the log without its clocks."""
    directory = runs / "tiny" / "0"
    rows = metrics_log.read(directory / "metrics.jsonl")
    for row in rows:
        row.pop("examples_per_second", None)
    return (directory / "model" / "model.safetensors").read_bytes(), rows


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    runs = tmp_path_factory.mktemp("uninterrupted")
    finished = start(runs)
    assert finished.returncode == 0, finished.stderr
    return runs


@pytest.fixture
def runs(uninterrupted, tmp_path):
    """A place that has the trained teacher and no student yet."""
    shutil.copytree(uninterrupted / "teachers", tmp_path / "teachers")
    return tmp_path


def test_killed_without_warning(uninterrupted, runs):
    # Checkpoints are at steps 8 and 16.
    killed = start(runs, kill_at=14, number=9)
    assert killed.returncode == -9
    assert not (runs / "tiny/0/summary.json").exists()
    again = start(runs)
    assert again.returncode == 0, again.stderr
    assert "resuming after step 8 of 24" in again.stdout
    assert outcome(runs) == outcome(uninterrupted)


def test_asked_to_stop(uninterrupted, runs):
    stopped = start(runs, kill_at=14, number=15)
    assert stopped.returncode == 128 + 15, stopped.stderr
    assert "stopped by SIGTERM at step 14" in stopped.stdout
    again = start(runs)
    assert again.returncode == 0, again.stderr
    assert "resuming after step 14 of 24" in again.stdout
    assert outcome(runs) == outcome(uninterrupted)


def test_killed_while_the_teacher_trains(uninterrupted, tmp_path):
    killed = start(tmp_path, kill_at=20, number=9)
    assert killed.returncode == -9
    assert not (tmp_path / "tiny/0/metrics.jsonl").exists()
    again = start(tmp_path)
    assert again.returncode == 0, again.stderr
    assert "resuming after step 16 of 24" in again.stdout
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_newest_checkpoint_damaged(uninterrupted, runs):
    killed = start(runs, kill_at=20, number=9)
    assert killed.returncode == -9
    for path in (runs / "tiny/0/checkpoints/16").rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)
    again = start(runs)
    assert again.returncode == 0, again.stderr
    assert "the checkpoint of step 16 cannot be read" in again.stdout
    assert "resuming after step 8 of 24" in again.stdout
    assert outcome(runs) == outcome(uninterrupted)


def test_asked_twice(uninterrupted, runs):
    """As by `timeout make exp`: the signal comes directly and through make."""
    stopped = start(runs, kill_at=14, number=15, times=2)
    assert stopped.returncode == 128 + 15, stopped.stderr
    again = start(runs)
    assert "resuming after step 14 of 24" in again.stdout
    assert outcome(runs) == outcome(uninterrupted)
