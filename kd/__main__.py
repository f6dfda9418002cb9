"""`python -m kd NAME [options] [field=value ...]`: what `make exp` calls."""

import argparse
import logging
import pathlib
import sys
import traceback
import warnings
from typing import NoReturn

from kd.errors import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see make help, or python -m kd --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m kd", description="Runs an experiment.")
    parser.add_argument("name", nargs="?", help="a module in experiments/")
    parser.add_argument(
        "fields", nargs="*", metavar="field=value",
        help="changes of the experiment, e.g. optimizer.learning_rate=1e-4",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="of the student (default 0)")
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
    except (MemoryError, RuntimeError) as error:
        reason = _shortage(error)
        if not reason:
            raise
        if debug:
            traceback.print_exc()
        print(f"error: {reason}", file=sys.stderr)
        return 2
    except OSError as error:
        # A full disk, no permission: the environment's fault, not this code's.
        if debug:
            traceback.print_exc()
        print(f"error: {error.filename or 'input/output'}: {error.strerror or error}",
              file=sys.stderr)  # fmt: skip
        return 2


def _shortage(error: MemoryError | RuntimeError) -> str:
    """What the machine does not have, in a line; nothing for another error."""
    first = (str(error).splitlines() or [""])[0]
    # XLA's errors are told apart by their words alone, and so is pathlib's.
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in first:
        what = f" ({first:.200})" if first else ""
        return (
            f"out of memory{what}; a lower batch_size needs less, and so does a higher "
            "num_microbatches"
        )
    if "home directory" in first:
        return "a path begins with ~ and there is no such home; give it without ~"
    return ""


def _run(options: argparse.Namespace) -> int:
    # Imports take seconds; --help and mistyped options should not wait for them.
    try:
        import jax  # noqa: F401
    except ValueError as error:  # a variable such as JAX_ENABLE_X64
        raise UserError(f"JAX does not start: {error}") from error

    from kd import catalog, config

    if options.name is None:
        print(f"Which experiment? make exp NAME=...\n{catalog.listing()}")
        return 2
    warnings.filterwarnings("ignore")
    # Orbax logs what it also raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # It warns of a home that it cannot write its cache to.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)

    import tqdm

    from kd import environment, run, weights
    from kd.report.table import final_table
    from kd.train.mesh import data_mesh
    from kd.train.signals import Interrupted

    environment.tune_compiler()
    accelerated = environment.backend() != "cpu"
    scale = options.scale
    why = "as asked"
    if scale == "auto":
        scale = "paper" if accelerated else "mini"
        why = (
            "an accelerator was found"
            if accelerated
            else "no accelerator was found; JAX needs make install-gpu to see one"
        )
    chosen = {
        "seed": options.seed,
        "data.source": options.source,
        "data.directory": options.data_dir,
    }
    if options.data_dir and options.source in ("tfds", "bundled"):
        raise UserError(f"DATA_DIR is not read with SOURCE={options.source}; drop one")
    assignments = [f"{k}={v}" for k, v in chosen.items() if v is not None]
    experiment = config.override(
        catalog.load(options.name, scale), *options.fields, *assignments
    )
    try:
        experiment = experiment.sharing_data()
    except ValueError as error:
        raise UserError(f"a recipe does not fit the data: {error}") from error
    if options.weights:
        experiment = weights.from_folder(experiment, options.weights)
    try:
        runs = options.runs.expanduser()
    except RuntimeError as error:  # no such user, or one without a home
        raise UserError(
            f"RUNS={options.runs}: there is no such home; give a path without ~"
        ) from error
    environment.keep_compiled(runs / "compiled")
    tqdm.tqdm.write(f"{options.name}, seed {experiment.seed}, scale {scale} ({why})")
    try:
        workspace = run.Workspace(runs, scale, data_mesh(), tqdm.tqdm.write)
        summary = run.run(experiment, options.name, workspace)
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return interrupted.exit_status
    directory = runs / options.name / str(experiment.seed)
    print(final_table(summary, directory=directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
