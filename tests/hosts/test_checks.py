"""What several processes are told when they cannot be one run, a line each."""

import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest

from kd import hosts
from kd.errors import UserError
from kd.hosts import launch

ROOT = pathlib.Path(__file__).parents[2]
HERE = socket.gethostname()


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def words_of(*commands):
    """Status and lines of programs that run side by side."""
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for command in commands
    ]  # fmt: skip
    said = [process.communicate(timeout=200)[0].splitlines() for process in started]
    return [process.returncode for process in started], said


@pytest.mark.parametrize(
    "given, message",
    [
        (("host:1", 2, None), "PROCESS missing: several hosts need COORDINATOR="),
        ((None, None, 0), "COORDINATOR and PROCESSES missing"),
        (("host", 2, 0), "COORDINATOR=host: expected host:port"),
        (("host:0", 2, 0), "COORDINATOR=host:0: expected host:port"),
        (("host:1", 2, 2), "PROCESS=2 of PROCESSES=2: expected 0 to 1"),
        (("host:1", 2, -1), "PROCESS=-1 of PROCESSES=2: expected 0 to 1"),
    ],
)
def test_options_that_say_no_group(given, message):
    with pytest.raises(UserError, match=re.escape(message)):
        hosts.find(given[0], given[1], given[2], 1)


def test_one_process_is_no_group(monkeypatch):
    assert hosts.find(None, None, None, 1) is None
    assert hosts.find("host:1", 1, 0, 1) is None
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "no uri")
    assert hosts.find(None, 1, None, 1) is None
    with pytest.raises(UserError, match="the cluster does not say which"):
        hosts.find(None, None, None, 1)
    assert hosts.find("host:1", 4, 3, 1) == hosts.Group("host:1", 4, 3)
    assert not hosts.several() and hosts.is_first()
    assert hosts.of_all(3) == [3] and hosts.of_first(lambda: 4) == 4


def test_a_job_of_slurm_is_found(monkeypatch):
    job = {
        "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[3-4]", "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    }  # fmt: skip
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    found = hosts.find(None, None, None, 1)
    assert found == hosts.Group("node3:61447", 4, 3, (1,))
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert hosts.find(None, None, None, 1) is None


@pytest.mark.slow
def test_processes_that_do_not_find_each_other(tmp_path):
    def process(i, of, address, patience):
        return (
            "-m", "kd", "sst2_ce", "--runs", tmp_path / address, "--coordinator",
            address, "--processes", of, "--process", i, "--patience", patience,
        )  # fmt: skip

    nobody, few, twice = free_address(), free_address(), free_address()
    statuses, said = words_of(
        process(1, 2, nobody, 1),
        process(0, 2, few, 10),
        process(0, 3, twice, 20),
        process(1, 3, twice, 20),
        process(1, 3, twice, 20),
    )
    assert all(statuses) and all(len(lines) == 1 for lines in said), said
    (unreached,), (waited,), (first,), *same = said
    assert unreached.startswith(
        f"process 1: error: the coordinator {nobody} does not answer within 1 s"
    )
    assert waited.startswith(f"error: not all of 2 processes came to {few} within 10 s")
    assert first.startswith(f"error: not all of 3 processes came to {twice}")
    assert any("another process has PROCESS=1 too" in line for (line,) in same)


@pytest.mark.slow
def test_processes_that_differ(tmp_path):
    address = free_address()
    worker = pathlib.Path(__file__).with_name("checks_worker.py")
    statuses, said = words_of(*((worker, tmp_path, address, i) for i in range(2)))
    assert statuses == [0, 0], said
    first, second = (
        dict(line.removeprefix("process 1: ").partition(": ")[::2] for line in lines)
        for lines in (
            said[0], [line.replace(f"process 1 ({HERE}): ", "", 1) for line in said[1]]
        )
    )  # fmt: skip
    rows = first.pop("rows"), second.pop("rows")
    assert rows == (str([0, 1, 2, 3]), str([4, 5, 6, 7]))
    assert (first.pop("then"), second.pop("then")) == ("0", "1")
    # Each names the folder that it was given.
    folders = [found.pop("folder") for found in (first, second)]
    for i, words in enumerate(folders):
        assert words.startswith(
            f"error: RUNS={tmp_path}/{i} is not one folder for all: process 1"
        )
    assert first == second
    both = f"process 0 ({HERE}) and process 1 ({HERE})"
    expected = {
        "alike": "None",
        "seed": f"error: {both} differ in experiment.seed: 0 -> 1",
        "clocks": f"error: the clocks of {both} are 100 s apart",
        "devices": f"error: {both} differ in devices.of each process: 4 -> 5",
        "data": "error: the data: SST-0 in process 0",
        "batch": "error: batch_size=3 has no example for some of 4 devices of 2",
        "first": "error: process 0 cannot",
        "all": "[5, 6]",
    }
    assert first.keys() == expected.keys()
    for name, words in expected.items():
        assert first[name].startswith(words), name


def test_launched_processes_have_one_status(capfd):
    def python(program):
        return [sys.executable, "-c", program]

    assert launch.run([python("print('a')"), python("print('b')")]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert sorted(lines) == ["0| a", "1| b"]
    assert launch.run([python("pass"), python("import sys; sys.exit(3)")]) == 3
    assert launch.run([python("import os; os.kill(os.getpid(), 9)")]) == 128 + 9


def test_one_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(launch, "_GRACE", 0.2)
    stuck = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert launch.run([stuck, [sys.executable, "-c", "import sys; sys.exit(2)"]]) == 2


@pytest.mark.slow
def test_the_command_of_several(tmp_path):
    fields = (
        "student.num_layers=1 student.width=16 student.num_heads=2 "
        "student.mlp_width=32 data.tokenizer.size=300 data.widths=32 num_steps=4"
    )
    done = subprocess.run(
        [
            sys.executable, "-m", "kd", "hosts", "2", "sst2_teacher", *fields.split(),
            "--source", "bundled", "--runs", str(tmp_path),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("0| ") for line in lines if not line.startswith("1| "))
    assert [line for line in lines if line.startswith("1| ")] == []
    assert any("2 processes on" in line for line in lines)
    assert (tmp_path / "sst2_teacher" / "0" / "report.html").exists()
    assert "step 4/4: dev" in (tmp_path / "hosts" / "sst2_teacher.0.1.log").read_text()
