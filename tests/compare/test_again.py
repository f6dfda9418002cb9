"""Cells made again by the very commands that a page prints."""

import html
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import subprocess

import pytest

from kd.__main__ import main

ROOT = pathlib.Path(__file__).parents[2]


def arguments_of(command):
    """What `make` hands to `python -m kd`, as the Makefile says."""
    make, *words = shlex.split(command)
    assert make == "make"
    # Nothing is set up, and what is called only shows its arguments.
    show = ["PY=printf '%s\\n'", "--old-file=.venv/.installed"]
    done = subprocess.run(
        [make, "--no-print-directory", "--silent", *show, *words],
        cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    python, module, *arguments = done.stdout.splitlines()
    assert (python, module) == ("-m", "kd")
    return arguments


def scores(key):
    summary = json.loads(
        pathlib.Path("runs", "networks", key, "summary.json").read_text()
    )
    return summary["student"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"), [("tiny", 3), ("tiny_paper", 1), ("tiny_tuned", 1)]
)
def test_random_cells_are_made_again_by_their_commands(here, name, count):
    if name == "tiny_tuned":
        assert main(["sweep", name]) == 0
    assert main(["table", name]) == 0
    page = html.unescape(pathlib.Path("results", f"{name}.html").read_text())
    cells = re.findall(
        r"<td>(make table .*?)</td>.*?<td>runs/networks/(.*?)</td>", page
    )
    record = json.loads(pathlib.Path("results", f"{name}.json").read_text())
    keys = [seed["key"] for row in record["rows"] for seed in row["seeds"]]
    assert [key for _, key in cells] == keys and len(keys) == 4
    for command, key in random.Random(name).sample(cells, count):
        before = scores(key)
        shutil.rmtree(pathlib.Path("runs", "networks", key))
        if name == "tiny_tuned":
            # It says all by itself.
            pathlib.Path("results", f"{name}.tuned.json").unlink(missing_ok=True)
        made = {*pathlib.Path("runs", "networks").iterdir()}
        assert main(arguments_of(command)) == 0
        # It is this run, and no other.
        new = {*pathlib.Path("runs", "networks").iterdir()} - made
        assert [path.name for path in new] == [key]
        assert scores(key) == before


@pytest.mark.slow
def test_all_that_a_command_says_arrives():
    assert arguments_of(
        "make table NAME=tiny TUNED=no ARGS=\"optimizer.warmup=0.1 'x=a b'\" "
        'ROW="KL + SinKD" SEEDS=0'
    ) == [
        "table", "--row=KL + SinKD", "--seeds=0", "--tuned=no", "tiny",
        "optimizer.warmup=0.1", "x=a b",
    ]  # fmt: skip
    assert arguments_of(
        'make sweep NAME=tiny GRID="a.b=[1,2] c=[3]" TRIALS=8 SEEDS=100,101 RESULTS=r'
    ) == [
        "sweep", "--seeds=100,101", "--grid=a.b=[1,2] c=[3]", "--trials=8",
        "--results=r", "tiny",
    ]  # fmt: skip
