"""Experiments, and what else lies in `experiments/`, by name: listed and loaded."""

import ast
import contextlib
import difflib
import importlib
import importlib.machinery
import importlib.util
import pathlib
import sys
import traceback
import types
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from kd.compare.table import Table
from kd.errors import UserError
from kd.experiment import Experiment, Scale

DIRECTORY = pathlib.Path(__file__).resolve().parent.parent / "experiments"
"""That of a checkout. One module an experiment; its name is the experiment's."""


def folder() -> pathlib.Path:
    """Where the experiments are: beside `kd` in a checkout, else in the working folder.

    Raises:
        UserError: there are none.
    """
    # What pip installed has its record beside it, and what else is there is not ours.
    installed = any(DIRECTORY.parent.glob("kd_ot-*.dist-info"))
    if DIRECTORY.is_dir() and not installed:
        return DIRECTORY
    here = pathlib.Path.cwd() / "experiments"
    if not here.is_dir():
        raise UserError(
            f"{here}: no such folder, and kd was installed without its own; start it "
            "where experiments/ is, such as in a checkout"
        )
    return here.resolve()


class Shelf(NamedTuple):
    """Modules of one kind, each with a function that makes what it is named for."""

    kind: str
    """The function's name."""
    inside: str
    """A package in `experiments`; empty for itself."""
    makes: type
    """The class of what is made."""


EXPERIMENTS = Shelf("experiment", "", Experiment)
TABLES = Shelf("table", "tables", Table)


def names(shelf: Shelf = EXPERIMENTS) -> list[str]:
    """All there are, sorted; a module that begins with "_" is none."""
    stems = (path.stem for path in (folder() / shelf.inside).glob("*.py"))
    return sorted(s for s in stems if not s.startswith((".", "_")))


def headline(name: str, shelf: Shelf = EXPERIMENTS) -> str:
    """The first line of a module's docstring, without running the module.

    What is wrong with one that cannot be read is its line instead.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            module = ast.parse(_file(name, shelf).read_bytes())
    except SyntaxError as error:
        return f"(unfinished, line {error.lineno or 1}: {_line(error.msg)})"
    except (OSError, ValueError, MemoryError, RecursionError) as error:
        return f"(unreadable: {_line(str(error) or type(error).__name__)})"
    first = (ast.get_docstring(module) or "").partition("\n")[0]
    return first or "(no docstring)"


def listing(shelf: Shelf = EXPERIMENTS) -> str:
    """Everything there is with its headline, a line each."""
    known = names(shelf)
    width = max(map(len, known), default=0)
    return "\n".join(f"  {name:<{width}}  {headline(name, shelf)}" for name in known)


def load(name: str, scale: Scale, shelf: Shelf = EXPERIMENTS) -> Any:
    """What a module in `experiments/` makes.

    Raises:
        UserError: there is no such module; the message lists those there are. Or it
            does not run, or makes something else.
    """
    known, kind = names(shelf), shelf.kind
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"no {kind} {name!r}{hint}\nThere are:\n{listing(shelf)}")
    path = _file(name, shelf)
    wanted = f"{shelf.makes.__module__}.{shelf.makes.__qualname__}"
    with _named_experiments(folder()):
        with _faults_of(path, 1):
            dotted = ".".join(filter(None, ("experiments", shelf.inside, name)))
            module = importlib.import_module(dotted)
        make = getattr(module, kind, None)
        if not callable(make):
            raise UserError(
                f"{path}:1: it defines no {kind}; expected a function "
                f"{kind}(scale) that returns a {wanted}"
            )
        code = getattr(make, "__code__", None)
        line = code.co_firstlineno if code else 1
        with _faults_of(path, line):
            made = make(scale)
    if not isinstance(made, shelf.makes):
        raise UserError(
            f"{path}:{line}: {kind}({scale!r}) returned "
            f"{_line(repr(made)):.80}; expected a {wanted}"
        )
    return made


def _file(name: str, shelf: Shelf) -> pathlib.Path:
    return folder() / shelf.inside / f"{name}.py"


def _line(text: str) -> str:
    return " ".join(text.split())


@contextlib.contextmanager
def _named_experiments(directory: pathlib.Path) -> Iterator[None]:
    """`experiments` is the package in this directory, whatever else has the name.

    Where a plain `import experiments` gives another one, or none, that remains so
    afterwards, and ours are kept here, so that each is executed once.
    """
    if _importable() == [directory]:
        yield
        return
    ours = _KEPT.setdefault(directory, {"experiments": _package(directory)})
    others = _exchange(ours)
    try:
        yield
    finally:
        _KEPT[directory] = _exchange(others)


_KEPT: dict[pathlib.Path, dict[str, types.ModuleType]] = {}
"""By directory, what `sys.modules` holds while one of its modules is loaded."""


def _importable() -> list[pathlib.Path]:
    """Where a plain `import experiments` finds its modules."""
    try:
        spec = importlib.util.find_spec("experiments")
    except ValueError:  # a module that was made by hand
        return []
    places = spec.submodule_search_locations if spec else None
    return [pathlib.Path(place).resolve() for place in places or []]


def _package(directory: pathlib.Path) -> types.ModuleType:
    spec = importlib.machinery.ModuleSpec("experiments", None, is_package=True)
    spec.submodule_search_locations = [str(directory)]
    return importlib.util.module_from_spec(spec)


def _exchange(modules: dict[str, types.ModuleType]) -> dict[str, types.ModuleType]:
    """Puts these in `sys.modules`; returns those of that name that were there."""
    names = [name for name in sys.modules if name.partition(".")[0] == "experiments"]
    others = {name: sys.modules.pop(name) for name in names}
    sys.modules.update(modules)
    return others


@contextlib.contextmanager
def _faults_of(path: pathlib.Path, line: int) -> Iterator[None]:
    """Turns what an experiment's module raises into one line that says where.

    Args:
        path: of the module.
        line: of it, where none of `experiments/` is known.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except SyntaxError as error:
        if error.filename:
            path, line = pathlib.Path(error.filename), error.lineno or 1
        raise UserError(f"{path}:{line}: {_line(error.msg)}") from error
    except RecursionError as error:
        path, line = _where(error.__traceback__, path, line)
        raise UserError(
            f"{path}:{line}: the experiment is made from itself without end; a chain "
            "of networks must begin with one that has no teacher and no start"
        ) from error
    except Exception as error:
        path, line = _where(error.__traceback__, path, line)
        what = f"{type(error).__name__}: {_line(str(error))}".removesuffix(": ")
        raise UserError(f"{path}:{line}: {what}") from error


def _where(
    trace: types.TracebackType | None, path: pathlib.Path, line: int
) -> tuple[pathlib.Path, int]:
    """The innermost line of `experiments/` in a traceback."""
    for frame, number in traceback.walk_tb(trace):
        file = pathlib.Path(frame.f_code.co_filename)
        if file.is_relative_to(folder()):
            path, line = file, number
    return path, line
