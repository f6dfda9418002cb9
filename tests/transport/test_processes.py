"""One plan over 8 devices, and over the devices of two processes."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("num_processes, num_devices", [(1, 8), (2, 2)])
def test_the_plan_is_that_of_one_device(num_processes, num_devices):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    worker = str(pathlib.Path(__file__).with_name("spread_worker.py"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, worker, *map(str, (i, num_processes, num_devices, port))],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment,
        )
        for i in range(num_processes)
    ]  # fmt: skip
    try:
        for process in processes:
            said, _ = process.communicate(timeout=300)
            assert process.returncode == 0 and "agreed" in said, said
    finally:
        for process in processes:
            process.kill()
