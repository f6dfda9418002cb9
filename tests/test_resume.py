"""A run that is killed and started again ends like one that never was.

Killing takes a process of its own and a real signal, at a step of our choice.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from conftest import tiny_experiment

from kd import run
from kd.train import metrics_log
from kd.train.mesh import data_mesh

pytestmark = pytest.mark.slow

TESTS = pathlib.Path(__file__).parent
RUN = """
import os, pathlib, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
import conftest
from kd import run
from kd.train import loop, signals
from kd.train.mesh import data_mesh

runs, kill_at, times = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4])
place = loop.shard_batch
batches = 0


def counted(batch, mesh):
    global batches
    batches += 1
    if batches == kill_at:
        for _ in range(times):
            os.kill(os.getpid(), int(sys.argv[3]))
    return place(batch, mesh)


loop.shard_batch = counted
tiny = conftest.tiny_experiment(widths=(16, 32))
try:
    run.run(tiny, "tiny", run.Workspace(runs, "mini", data_mesh(), print))
except signals.Interrupted as interrupted:
    print(interrupted)
    sys.exit(interrupted.exit_status)
"""


def run_in_process(runs, kill_at, number, times=1):
    """Runs the experiment; at batch `kill_at` the signal comes, `times` times."""
    program = RUN.format(root=str(TESTS.parent), tests=str(TESTS))
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, (runs, kill_at, number, times))],
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_here(runs):
    """Runs the experiment and returns what it said."""
    said = []
    place = run.Workspace(runs, "mini", data_mesh(), said.append)
    run.run(tiny_experiment(widths=(16, 32)), "tiny", place)
    return said


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
    run_here(runs)
    return runs


@pytest.fixture
def runs(uninterrupted, tmp_path):
    """A place that has the trained teacher and no student yet."""
    shutil.copytree(uninterrupted / "networks", tmp_path / "networks")
    return tmp_path


def test_killed_without_warning(uninterrupted, runs):
    # Checkpoints are at steps 8 and 16.
    died = run_in_process(runs, kill_at=14, number=9)
    assert died.returncode == -9
    assert not (runs / "tiny/0/summary.json").exists()
    assert "resuming after step 8 of 24" in run_here(runs)
    assert outcome(runs) == outcome(uninterrupted)


def test_asked_to_stop(uninterrupted, runs):
    # Twice, as by `timeout make exp`: the signal comes directly and through make.
    stopped = run_in_process(runs, kill_at=14, number=15, times=2)
    assert stopped.returncode == 128 + 15, stopped.stderr
    assert "stopped by SIGTERM at step 14" in stopped.stdout
    assert "resuming after step 14 of 24" in run_here(runs)
    assert outcome(runs) == outcome(uninterrupted)


def test_killed_while_the_teacher_trains(uninterrupted, tmp_path):
    killed = run_in_process(tmp_path, kill_at=20, number=9)
    assert killed.returncode == -9
    assert not (tmp_path / "tiny/0/metrics.jsonl").exists()
    assert "resuming after step 16 of 24" in run_here(tmp_path)
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_newest_checkpoint_damaged(uninterrupted, runs):
    killed = run_in_process(runs, kill_at=20, number=9)
    assert killed.returncode == -9
    for path in (runs / "tiny/0/checkpoints/16").rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)
    said = run_here(runs)
    assert any("the checkpoint of step 16 cannot be read" in line for line in said)
    assert "resuming after step 8 of 24" in said
    assert outcome(runs) == outcome(uninterrupted)
