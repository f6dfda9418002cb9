"""The notebooks are made from their sources, and the sources run.

They are run as plain Python, which needs no kernel and so runs wherever the tests do;
`make notebooks` runs them in one.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"


def load_build():
    spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_build()
every_source = pytest.mark.parametrize(
    "source", build.sources(), ids=lambda source: source.stem
)


@every_source
def test_notebook_is_the_one_made_from_its_source(source):
    made = build.as_notebook(source.read_text(encoding="utf-8"))
    committed = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert committed == made, "make it anew: python notebooks/build.py"
    cells = json.loads(made)["cells"]
    assert cells[0]["cell_type"] == "markdown" and "REPOSITORY" in str(cells[1])


def test_cells_are_cut_at_their_marks():
    made = json.loads(
        build.as_notebook("# %% [markdown]\n# # A\n#\n# b\n\n# %%\nx = 1\n")
    )
    text, code = made["cells"]
    assert "".join(text["source"]) == "# A\n\nb"
    assert "".join(code["source"]) == "x = 1" and code["outputs"] == []


@pytest.mark.slow
@every_source
def test_notebook_runs(source):
    # Most of the time is compiling, and nothing is drawn on a screen.
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::UserWarning", source.name],
        cwd=FOLDER,
        env=os.environ | quick,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
