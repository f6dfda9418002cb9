"""Teachers asked in two processes: the first writes what both compute."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from hosts.kept_worker import asking

from kd import run
from kd.run.cache import cache
from kd.train.mesh import data_mesh

pytestmark = pytest.mark.slow


def test_two_processes_leave_what_one_leaves(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    worker = pathlib.Path(__file__).parent / "kept_worker.py"
    processes = [
        subprocess.Popen(
            [sys.executable, str(worker), str(tmp_path / "two"), address, "2", str(i)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    said[1] = (tmp_path / "two/hosts/1.log").read_text()
    # The same teacher, asked by one process of two devices.
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    shutil.rmtree(tmp_path / "one/networks/answers")
    mesh = data_mesh(jax.devices()[:2])
    workspace = run.Workspace(tmp_path / "one", "mini", mesh, lambda line: None)
    alone = cache(asking(), workspace).kept[0]
    both = tmp_path / "two" / alone.folder.relative_to(tmp_path / "one")
    for words in said:
        assert str(alone.arrays["teacher_logits/ids"].shape) in words
    for name, dtype in {"ids": "u2", "values": "f2", "tails": "f4"}.items():
        ours, theirs = (
            np.fromfile(folder / f"{name}.bin", dtype)
            for folder in (alone.folder, both)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not [*(tmp_path / "two/networks").glob(".inputs-*")]
