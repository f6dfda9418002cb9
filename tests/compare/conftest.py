"""A folder to work in, with an experiment and tables of tiny runs."""

import os
import pathlib
import sys

import pytest

from kd import catalog

EXPERIMENT = '''"""A tiny student, with SinKD."""
import dataclasses
from conftest import tiny_experiment
def experiment(scale):
    return dataclasses.replace(tiny_experiment(), num_steps=6)
'''
TABLE = '''"""Labels alone and SinKD, tiny."""
import dataclasses
from experiments import tiny_sinkd
from kd.compare.table import Table
from kd.objective import CrossEntropy
def table(scale):
    sinkd = tiny_sinkd.experiment(scale)
    labels = dataclasses.replace(sinkd, objective=1.0 * CrossEntropy())
    return Table(rows={"labels": labels, "KL + SinKD": sinkd}, baseline="labels",
        seeds=(0, 1), also=("nll",))
'''
TUNED = '''"""The same, with a tuning of its own."""
import dataclasses
from experiments.tables import tiny
from kd.compare.tuning import Tuning
def table(scale):
    rates = (3e-4, 3e-3)
    grid = {"optimizer.learning_rate": rates, "objective.sinkd.weight": (1, 3)}
    tuning = Tuning(grid=grid, seeds=(100,))
    return dataclasses.replace(tiny.table(scale), tuning=tuning)
'''
PAPER = '''"""The same by the published protocol."""
import dataclasses
from experiments.tables import tiny
def table(scale):
    return dataclasses.replace(tiny.table(scale), protocol="paper")
'''
MODULES = {
    "tiny_sinkd": EXPERIMENT,
    "tables/tiny": TABLE,
    "tables/tiny_tuned": TUNED,
    "tables/tiny_paper": PAPER,
}


def _forget() -> None:
    for name in [name for name in sys.modules if name.startswith("experiments")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The working folder: `runs/` and `results/` go there."""
    folder = tmp_path_factory.mktemp("here").resolve()
    for name, content in MODULES.items():
        path = folder / "experiments" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    before = pathlib.Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "DIRECTORY", folder / "experiments")
        _forget()
        os.chdir(folder)
        yield folder
        os.chdir(before)
        _forget()
