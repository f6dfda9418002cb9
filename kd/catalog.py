"""Experiments by name: the modules in `experiments/`, listed and loaded."""

import ast
import difflib
import importlib
import pathlib

from kd.errors import UserError
from kd.experiment import Experiment, Scale

DIRECTORY = pathlib.Path(__file__).resolve().parent.parent / "experiments"
"""One module an experiment; its name is the experiment's."""


def names() -> list[str]:
    """All experiments, sorted."""
    return sorted(
        path.stem for path in DIRECTORY.glob("*.py") if path.stem != "__init__"
    )


def headline(name: str) -> str:
    """The first line of an experiment's docstring, without running the module."""
    module = ast.parse((DIRECTORY / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(module) or "").partition("\n")[0]


def listing() -> str:
    """Every experiment with its headline, a line each."""
    width = max(map(len, names()))
    return "\n".join(f"  {name:<{width}}  {headline(name)}" for name in names())


def load(name: str, scale: Scale) -> Experiment:
    """The experiment of a module in `experiments/`.

    Raises:
        UserError: there is no such module; the message lists those there are.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"no experiment {name!r}{hint}\nThere are:\n{listing()}")
    module = importlib.import_module(f"experiments.{name}")
    return module.experiment(scale)
