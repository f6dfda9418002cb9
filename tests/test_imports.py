"""Starting takes as long as what it imports."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
HEAVY = {
    "matplotlib.pyplot", "ott", "tensorflow", "tensorflow_datasets", "torch",
    "transformers",
}  # fmt: skip


def imported(program):
    """The names of all modules that a program has imported in the end."""
    program += "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=True,
    )  # fmt: skip
    return {*json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.slow
def test_what_a_run_does_not_need_is_not_imported():
    modules = imported("import kd.__main__, kd.run, kd.report.page")
    assert modules >= {"jax", "kd.run.workflow"}
    assert not modules & HEAVY


def test_help_imports_no_jax():
    main = "from kd.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: ..."
    modules = imported(main)
    assert "kd.__main__" in modules
    assert not modules & (HEAVY | {"jax", "numpy"})
