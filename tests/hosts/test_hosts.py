"""A run in several processes is that of one process with as many devices.

The processes are real, and so are the signals. What a run in one process with two
devices leaves is what most are compared with.
"""

import functools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from hosts.worker import EXPERIMENTS, mixed, plain, recording
from safetensors.numpy import load_file

from kd import run
from kd.run import fit
from kd.train import metrics_log
from kd.train.mesh import data_mesh

pytestmark = pytest.mark.slow

HERE = pathlib.Path(__file__).parent


def run_here(runs, num_devices=2, experiment=plain):
    """Runs the experiment in this process and returns what it said."""
    said = []
    mesh = data_mesh(jax.devices()[:num_devices])
    run.run(experiment(), "tiny", run.Workspace(runs, "mini", mesh, said.append))
    return said


def run_in_several(
    runs, kill_at=0, number=0, victim=0, processes=2, devices=1, experiment=plain
):
    """Status and words of each process; at batch `kill_at` the victim gets a signal."""
    which = EXPERIMENTS.index(experiment)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / "worker.py")]
            + [str(x) for x in (runs, address, processes, i, kill_at, number, victim)]
            + [str(devices), str(which)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        for i in range(processes)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], said


def outcome(runs):
    """Numbers of the log, predictions and weights."""
    directory = runs / "tiny" / "0"
    rows = metrics_log.read(directory / "metrics.jsonl")
    log = [{k: v for k, v in row.items() if "second" not in k} for row in rows]
    with np.load(directory / "predictions.npz", allow_pickle=False) as arrays:
        predictions = dict(arrays)
    return log, predictions, load_file(directory / "model" / "model.safetensors")


def assert_same(found, expected, tolerance):
    (log, *arrays), (log_of_one, *arrays_of_one) = found, expected
    for row, row_of_one in zip(log, log_of_one, strict=True):
        assert row.pop("split") == row_of_one["split"]
        numbers = {k: v for k, v in row_of_one.items() if k != "split"}
        assert row == pytest.approx(numbers, rel=tolerance, abs=tolerance)
    for ours, theirs in zip(arrays, arrays_of_one, strict=True):
        assert ours.keys() == theirs.keys()
        for name, values in ours.items():
            np.testing.assert_allclose(
                values, theirs[name], rtol=tolerance, atol=tolerance
            )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    runs = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "train", recording(runs / "collectives.0.json"))
        run_here(runs)
    return runs


@pytest.fixture(scope="module")
def one_process(alone, tmp_path_factory):
    """Where a process with so many devices ran an experiment, once each."""

    @functools.cache
    def place_of(num_devices, experiment):
        place = tmp_path_factory.mktemp("one")
        shutil.copytree(alone / "networks", place / "networks")
        run_here(place, num_devices, experiment)
        return place

    return place_of


@pytest.fixture
def runs(alone, tmp_path):
    """A place that has the trained teacher and no student yet."""
    shutil.copytree(alone / "networks", tmp_path / "networks")
    return tmp_path


def test_two_processes_are_one(alone, tmp_path):
    # The teacher, too, is trained by both.
    statuses, (first, second) = run_in_several(tmp_path)
    assert statuses == [0, 0], first + second
    assert_same(outcome(tmp_path), outcome(alone), 1e-6)
    expected = json.loads((alone / "collectives.0.json").read_text())
    assert expected["collectives"]
    for process in range(2):
        path = tmp_path / f"collectives.{process}.json"
        assert json.loads(path.read_text()) == expected
    # One voice, one writer.
    assert "teacher: training it" in first and second == ""
    assert "step 24/24: dev" in (tmp_path / "hosts" / "1.log").read_text()
    of_both, of_one = (
        {str(path.relative_to(place)) for path in place.rglob("*")}
        for place in (tmp_path / "tiny", alone / "tiny")
    )
    assert of_both == of_one
    summary = json.loads((tmp_path / "tiny/0/summary.json").read_text())
    assert summary["device"]["num_devices"] == summary["device"]["num_processes"] == 2


def test_asked_to_stop_and_gone_on_with_by_one(alone, runs):
    statuses, said = run_in_several(runs, kill_at=14, number=signal.SIGTERM, victim=1)
    assert statuses == [128 + signal.SIGTERM] * 2, said
    for words in said:
        assert "stopped by SIGTERM at step" in words
    step, same = (words.partition("at step ")[2].partition(",")[0] for words in said)
    assert step == same and 14 <= int(step) < 24
    assert f"resuming after step {step} of 24" in run_here(runs)
    assert_same(outcome(runs), outcome(alone), 1e-6)


@pytest.mark.parametrize(
    "processes, devices, experiment", [(2, 1, mixed), (2, 2, plain), (4, 1, plain)]
)
def test_others_are_one_too(one_process, runs, processes, devices, experiment):
    statuses, said = run_in_several(
        runs, processes=processes, devices=devices, experiment=experiment
    )
    assert statuses == [0] * processes, said
    expected = one_process(processes * devices, experiment)
    assert_same(outcome(runs), outcome(expected), 1e-6)
    summary = json.loads((runs / "tiny/0/summary.json").read_text())
    assert summary["device"]["num_processes"] == processes
    assert summary["device"]["num_devices"] == processes * devices


def test_a_checkpoint_damaged_between_gives_way_to_the_one_before(alone, runs):
    statuses, said = run_in_several(runs, kill_at=20, number=signal.SIGTERM, victim=1)
    assert statuses == [128 + signal.SIGTERM] * 2, said
    checkpoints = runs / "tiny/0/checkpoints"
    steps = sorted(int(path.name) for path in checkpoints.iterdir())
    # The largest file of the newest holds the arrays.
    files = [
        path for path in (checkpoints / f"{steps[-1]}").rglob("*") if path.is_file()
    ]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 16] = bytes(16)
    largest.write_bytes(content)
    statuses, (first, second) = run_in_several(runs)
    assert statuses == [0, 0], first + second
    assert f"the checkpoint of step {steps[-1]} cannot be read" in first
    assert f"resuming after step {steps[-2]} of 24" in first
    assert_same(outcome(runs), outcome(alone), 1e-6)


@pytest.mark.parametrize("victim", [0, 1])
def test_killed(runs, victim):
    begun = time.monotonic()
    statuses, said = run_in_several(
        runs, kill_at=14, number=signal.SIGKILL, victim=victim
    )
    assert time.monotonic() - begun < 120, "the one left should end within a minute"
    assert statuses[victim] == -signal.SIGKILL
    assert statuses[1 - victim] == 1
    last = said[1 - victim].splitlines()[-1]
    assert f"process {victim} ({socket.gethostname()})" in last and "died" in last
    assert not (runs / "tiny/0/summary.json").exists()
