"""Unfinished modules, folders of the same name, and kd without its own folder."""

import importlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from kd import catalog
from kd.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
GOOD = '"""A good one."""\nfrom experiments.base import experiment\n'
BASE = (
    '"""The base."""\nimport dataclasses\nfrom kd.data.glue import SST2\n'
    "from kd.experiment import Experiment\nfrom kd.models.bert import Bert\n"
    "from kd.objective import CrossEntropy\nfrom kd.train.optimizer import AdamW\n"
    "def experiment(scale):\n"
    "    return Experiment(data=SST2, student=Bert(), num_steps=7,\n"
    "        objective=1.0 * CrossEntropy(), optimizer=AdamW())\n"
)
OWN = (
    '"""Its classes are its own."""\n'
    "from __future__ import annotations\nimport dataclasses\n"
    "from kd.experiment import Experiment\n"
    "from experiments import base\n"
    "Whole = int\n"
    "@dataclasses.dataclass(frozen=True)\nclass Mine:\n    size: Whole = 2\n"
    "@dataclasses.dataclass(frozen=True, kw_only=True)\nclass Own(Experiment):\n"
    "    mine: Mine = Mine()\n"
    "def experiment(scale):\n"
    "    return Own(**vars(base.experiment(scale)))\n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two good experiments, which stand for those of the checkout."""
    path = tmp_path.resolve() / "project" / "experiments"
    path.mkdir(parents=True)
    (path / "base.py").write_text(BASE)
    (path / "good.py").write_text(GOOD)
    monkeypatch.setattr(catalog, "DIRECTORY", path)
    for name in [name for name in sys.modules if name.startswith("experiments")]:
        monkeypatch.delitem(sys.modules, name)
    yield path
    for name in [name for name in sys.modules if name.startswith("experiments")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"\ndef experiment(scale:\n", r"\(unfinished, line 2: .+\)"),
        (b"def experiment(scale): ...\n", r"\(no docstring\)"),
        (b"", r"\(no docstring\)"),
        (b'"""Caf\xe9."""\n', r"\(unfinished, line 1: .*utf-8.*\)"),
        (b'"""A null."""\n\0', r"\(un(readable|finished).*: .*null bytes.*\)"),
        (b'"""Odd: \\d."""\n', r"Odd: \\d\."),
    ],
)
def test_an_unfinished_neighbour_is_listed_with_its_fault(folder, content, shown):
    (folder / "wip.py").write_bytes(content)
    (folder / ".#wip.py").symlink_to("nobody@nowhere.1")  # an editor's lock
    (folder / "__init__.py").write_text("")
    (folder / "_shared.py").write_text("")
    assert catalog.names() == ["base", "good", "wip"]
    base, good, wip = catalog.listing().splitlines()
    assert (base, good) == ("  base  The base.", "  good  A good one.")
    assert re.fullmatch(f"  wip   {shown}", wip)
    assert catalog.load("good", "mini").num_steps == 7


def test_a_file_that_cannot_be_opened_is_listed_with_its_fault(folder):
    (folder / "gone.py").symlink_to("nowhere")
    assert "(unreadable: " in catalog.listing()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\ndef experiment(scale:\n", r"wip\.py:2: .+"),
        (
            "\nimport no_such_package\n",
            r"wip\.py:2: ModuleNotFoundError: No module nam",
        ),
        ("import experiments.no_such\n", r"wip\.py:1: ModuleNotFoundError: .*no_such"),
        ("from experiments import broken\n", r"broken\.py:1: .+"),
        ("x = 1\n", r"wip\.py:1: it defines no experiment; expected a function exper"),
        ("experiment = 3\n", r"wip\.py:1: it defines no experiment"),
        ("def experiment(): ...\n", r"wip\.py:1: TypeError: .*takes 0 positional arg"),
        (
            "\ndef experiment(scale): ...\n",
            r"wip\.py:2: experiment\('mini'\) returned N",
        ),
        (
            "def experiment(scale):\n    return 1 / 0\n",
            r"wip\.py:2: ZeroDivisionError: division by zero",
        ),
        (
            "import dataclasses\nfrom experiments import base\ndef experiment(scale):\n"
            "    found = base.experiment(scale)\n"
            "    return dataclasses.replace(found, seed=-1)\n",
            r"wip\.py:5: ValueError: seed must not be negative, got -1",
        ),
        (
            "import dataclasses\nfrom experiments import base\n"
            "from kd.experiment import Network\ndef experiment(scale):\n"
            "    own = Network(recipe=experiment(scale))\n"
            "    return dataclasses.replace(base.experiment(scale), teachers=(own,))\n",
            r"wip\.py:5: the experiment is made from itself without end",
        ),
        ("from experiments import other\ny = 1\n", r"other\.py:1: ImportError: .*wip"),
        ("from kd.errors import UserError\nraise UserError('as it is')", "^as it is$"),
    ],
)
def test_one_that_does_not_load_says_where(folder, content, message):
    (folder / "broken.py").write_text("(")
    (folder / "other.py").write_text("from experiments.wip import y\n")
    (folder / "wip.py").write_text(content)
    with pytest.raises(UserError, match=message) as refused:
        catalog.load("wip", "mini")
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("imported", [False, True])
def test_somebody_elses_package_of_that_name(folder, tmp_path, imported):
    """It is neither taken for ours nor taken away, and ours are executed once."""
    theirs = tmp_path / "experiments"
    theirs.mkdir()
    (theirs / "__init__.py").write_text("OWNER = 'they'\n")
    (theirs / "own.py").write_text("MINE = 1\n")
    (folder / "own.py").write_text(OWN)
    program = f"""
if {imported}:
    import experiments
import pathlib, sys
from kd import catalog, config
catalog.DIRECTORY = pathlib.Path({str(folder)!r})
first, again = catalog.load("own", "mini"), catalog.load("own", "mini")
assert first.mine == again.mine
assert config.override(first, "mine.size=3").mine.size == 3
assert ("experiments" in sys.modules) == {imported}
import experiments
from experiments import own
assert experiments.OWNER == "they" and own.MINE == 1
assert catalog.load("own", "mini").mine == first.mine
assert sys.modules["experiments.own"] is own
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_plain_import_of_ours_gives_the_modules_that_were_loaded(folder, monkeypatch):
    (folder / "__init__.py").write_text("")
    (folder / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(folder.parent)
    loaded = catalog.load("own", "mini")
    own = importlib.import_module("experiments.own")
    assert type(loaded) is own.Own
    assert catalog.load("own", "mini") == loaded


@pytest.mark.parametrize("foreign", [False, True])
def test_installed_it_reads_the_working_folder(folder, tmp_path, monkeypatch, foreign):
    site = tmp_path / "site-packages"
    (site / "kd_ot-0.1.0.dist-info").mkdir(parents=True)
    if foreign:
        (site / "experiments").mkdir()
        (site / "experiments" / "theirs.py").write_text("")
    monkeypatch.setattr(catalog, "DIRECTORY", site / "experiments")
    monkeypatch.chdir(folder.parent)
    assert catalog.names() == ["base", "good"]
    assert catalog.load("good", "mini").num_steps == 7
    shutil.rmtree(folder)
    for call in (catalog.listing, lambda: catalog.load("good", "mini")):
        with pytest.raises(
            UserError, match=r"experiments: no such folder, .* start it"
        ):
            call()
