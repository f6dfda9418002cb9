"""What setup.cfg promises, and what an installed kd brings."""

import ast
import configparser
import pathlib
import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")
LOCKED = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^([\w.-]+)==([^ ;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
}


def lines(section, key):
    """A list of setup.cfg, without its comments."""
    given = CONFIG[section][key].split("\n")
    return [line for line in given if line and not line.startswith("#")]


REQUIRED = lines("options", "install_requires")
TESTED = REQUIRED + lines("options.extras_require", "test")


@pytest.mark.parametrize("text", TESTED)
def test_bounds_admit_the_version_that_is_tested(text):
    requirement = Requirement(text)
    version = LOCKED[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)


@pytest.mark.parametrize("text", REQUIRED)
def test_bounds_end_before_the_next_breaking_version(text):
    requirement = Requirement(text)
    locked = LOCKED[canonicalize_name(requirement.name)]
    major, minor, *_ = map(int, locked.split("."))
    breaking = f"{major + 1}.0" if major else f"0.{minor + 1}"
    assert not requirement.specifier.contains(breaking)


def imported(path):
    """The first parts of what a module imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def test_what_kd_imports_is_required():
    """And not only by the tests."""
    distributions = {"PIL": "pillow", "ott": "ott-jax", "sklearn": "scikit-learn"}
    distributions |= {"orbax": "orbax-checkpoint"}
    required = {canonicalize_name(Requirement(text).name) for text in REQUIRED}
    names = {name for path in (ROOT / "kd").rglob("*.py") for name in imported(path)}
    others = names - sys.stdlib_module_names - {"kd", "gguf", "tensorboardX"}
    assert "sklearn" in others
    assert {canonicalize_name(distributions.get(x, x)) for x in others} <= required


def test_only_kd_is_installed():
    setuptools = pytest.importorskip("setuptools", reason="a venv may lack it")
    include = lines("options.packages.find", "include")
    found = setuptools.find_namespace_packages(str(ROOT), include=include)
    assert "kd" in found and "kd.data" in found
    assert {name.partition(".")[0] for name in found} == {"kd"}


def test_types_are_installed():
    assert lines("options.package_data", "kd") == ["py.typed"]
    assert (ROOT / "kd" / "py.typed").read_bytes() == b""
