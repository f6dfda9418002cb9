"""`python -m kd NAME [options] [field=value ...]`: what `make exp` calls."""

import argparse
import dataclasses
import logging
import pathlib
import sys
import traceback
import warnings
from typing import NoReturn

from kd.errors import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m kd --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m kd", description="Runs an experiment.")
    parser.add_argument("name", nargs="?", help="a module in experiments/")
    parser.add_argument(
        "fields", nargs="*", metavar="field=value",
        help="changes of the experiment, e.g. optimizer.learning_rate=1e-4",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="of the student (default 0)")
    parser.add_argument(
        "--scale", choices=("auto", "paper", "mini"), default="auto",
        help="auto: paper on an accelerator, else mini",
    )  # fmt: skip
    parser.add_argument(
        "--source", choices=("auto", "local", "tfds", "bundled"),
        help="of the data; auto: the data directory if given, else TFDS, else bundled",
    )  # fmt: skip
    parser.add_argument("--data-dir", help="folder with SST-2/train.tsv (.gz, .xz)")
    parser.add_argument(
        "--runs", type=pathlib.Path, default=pathlib.Path("runs"),
        help="folder of all runs (default: runs)",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        return _run(_parser().parse_intermixed_args(arguments))
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # A second Ctrl-C, or one before training began.
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        # A full disk, no permission: the environment's fault, not this code's.
        if debug:
            traceback.print_exc()
        print(f"error: {error.filename or 'input/output'}: {error.strerror or error}",
              file=sys.stderr)  # fmt: skip
        return 2


def _run(options: argparse.Namespace) -> int:
    # Imports take seconds; --help and mistyped options should not wait for them.
    from kd import config

    if options.name is None:
        print(f"Which experiment? make exp NAME=...\n{config.listing()}")
        return 2
    if options.name not in config.names():
        config.load(options.name, "mini")
    warnings.filterwarnings("ignore")
    # Orbax logs what it also raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)

    import jax
    import tqdm

    from kd import run
    from kd.report.table import final_table
    from kd.train.loop import Interrupted
    from kd.train.mesh import data_mesh

    accelerated = jax.default_backend() != "cpu"
    scale = options.scale
    why = "as asked"
    if scale == "auto":
        scale = "paper" if accelerated else "mini"
        why = f"{'an' if accelerated else 'no'} accelerator was found"
    experiment = config.load(options.name, scale)
    for assignment in options.fields:
        experiment = config.override(experiment, assignment)
    if options.seed is not None:
        experiment = config.override(experiment, f"seed={options.seed}")
    experiment = _with_data(experiment, options.source, options.data_dir)
    tqdm.tqdm.write(f"{options.name}, seed {experiment.seed}, scale {scale} ({why})")
    try:
        host = run.Host(options.runs, scale, data_mesh(), tqdm.tqdm.write)
        summary = run.run(experiment, options.name, host)
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return interrupted.exit_status
    directory = options.runs / options.name / str(experiment.seed)
    print(final_table(summary, directory=directory))
    return 0


def _with_data(experiment, source: str | None, directory: str | None):
    """The experiment, and its teacher's recipe, on the data asked for."""
    changes = {"source": source, "directory": directory}
    changes = {name: value for name, value in changes.items() if value is not None}
    data = dataclasses.replace(experiment.data, **changes)
    experiment = dataclasses.replace(experiment, data=data)
    if experiment.teacher is not None:
        recipe = dataclasses.replace(experiment.teacher.recipe, data=data)
        teacher = dataclasses.replace(experiment.teacher, recipe=recipe)
        experiment = dataclasses.replace(experiment, teacher=teacher)
    return experiment


if __name__ == "__main__":
    sys.exit(main())
