"""Options that the commands share, and what these make of an experiment."""

import argparse
import logging
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from kd.errors import UserError


class Parser(argparse.ArgumentParser):
    """One whose complaints are lines like any other."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see make help, or python -m kd --help")


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what says where data, weights and runs are, and of which size networks."""
    parser.add_argument(
        "--scale", choices=("auto", "paper", "small", "mini"), default="auto",
        help="auto: paper on an accelerator, else mini",
    )  # fmt: skip
    parser.add_argument(
        "--source", choices=("auto", "local", "tfds", "bundled"),
        help="of the data; auto: the data directory if given, else TFDS, else bundled",
    )  # fmt: skip
    parser.add_argument(
        "--data-dir",
        help="folder of data sets, for example with SST-2/train.tsv (.gz, .xz)",
    )
    parser.add_argument(
        "--weights",
        help="folder of a network, or of several by their hub names, read instead of "
        "the hub",
    )
    parser.add_argument(
        "--runs", type=pathlib.Path, default=pathlib.Path("runs"),
        help="folder of all runs (default: runs)",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def add_hosts(parser: argparse.ArgumentParser) -> None:
    """Adds what says which of several processes this is, see docs/hosts.md."""
    group = parser.add_argument_group(
        "several hosts", "the same command on each; a cluster tells by itself"
    )
    group.add_argument("--coordinator", help="host:port of the first process")
    group.add_argument("--processes", type=int, help="how many there are")
    group.add_argument("--process", type=int, help="which one this is, from 0 on")
    group.add_argument(
        "--patience", type=int, default=120,
        help="seconds to wait for the others at the start (default: 120)",
    )  # fmt: skip


def start() -> None:
    """Imports JAX, and quiets what else would talk."""
    try:
        import jax  # noqa: F401
    except ValueError as error:  # a variable such as JAX_ENABLE_X64
        raise UserError(f"JAX does not start: {error}") from error

    from kd import environment

    warnings.filterwarnings("ignore")
    # Orbax logs what it also raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # It warns of a home that it cannot write its cache to.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    environment.tune_compiler()


def scale(options: argparse.Namespace) -> tuple[Any, str]:
    """The scale, and why it is that."""
    from kd import environment

    if options.scale != "auto":
        return options.scale, "as asked"
    if environment.backend() != "cpu":
        return "paper", "an accelerator was found"
    return "mini", "no accelerator was found; JAX needs make install-gpu to see one"


def runs(options: argparse.Namespace) -> pathlib.Path:
    """The folder of all runs, what is compiled being kept in it as well."""
    from kd import environment

    try:
        folder = options.runs.expanduser()
    except RuntimeError as error:  # no such user, or one without a home
        raise UserError(
            f"RUNS={options.runs}: there is no such home; give a path without ~"
        ) from error
    environment.keep_compiled(folder / "compiled")
    return folder


def join(options: argparse.Namespace, folder: pathlib.Path) -> None:
    """Joins the other processes, if there are any; in `folder` are their logs."""
    from kd import hosts

    ours = hosts.find(
        options.coordinator, options.processes, options.process, options.patience
    )
    if ours is not None:
        given = [f for f in options.fields if f.startswith("seed=")]
        seed = given[-1].partition("=")[2] if given else options.seed or 0
        log = folder / "hosts" / f"{options.name}.{seed}.{ours.process}.log"
        hosts.join(ours, log, patience=options.patience)


def configured(experiment, options: argparse.Namespace, fields: Sequence[str]):
    """An experiment with fields changed, and with data and weights as options say."""
    from kd import config, weights

    chosen = {"data.source": options.source, "data.directory": options.data_dir}
    if options.data_dir and options.source in ("tfds", "bundled"):
        raise UserError(f"DATA_DIR is not read with SOURCE={options.source}; drop one")
    assignments = [f"{k}={v}" for k, v in chosen.items() if v is not None]
    experiment = config.override(experiment, *fields, *assignments)
    try:
        experiment = experiment.sharing_data()
    except ValueError as error:
        raise UserError(f"a recipe does not fit the data: {error}") from error
    if options.weights:
        experiment = weights.from_folder(experiment, options.weights)
    return experiment
