"""`python -m kd NAME [options] [field=value ...]`: what `make exp` calls.

`python -m kd table`, `sweep`, `profile` and `cache` are what the targets of those names
call. `python -m kd memory NAME` says what a run takes in memory before anything is
trained.
`python -m kd generate MODEL --prompt TEXT` shows what a language model writes;
`python -m kd hosts N NAME` runs an experiment in several processes on this machine.
"""

import argparse
import importlib
import sys
import traceback

from kd import hosts, options
from kd.errors import UserError, is_out_of_memory

_COMMANDS = {
    "table": "kd.compare.command",
    "sweep": "kd.compare.sweep",
    "memory": "kd.run.memory",
    "profile": "kd.profile.command",
    "cache": "kd.cache.command",
    "generate": "kd.networks.generate",
    "hosts": "kd.hosts.launch",
}
"""Modules whose `main` takes the rest of the line, by its first word."""


def _parser() -> options.Parser:
    parser = options.Parser(
        prog="python -m kd",
        description="Runs an experiment. `table NAME` makes a table of them, `sweep "
        "NAME` tries their settings, `memory NAME` says what a run takes, `profile "
        "RUN` compares training with dev in the layers of a run, `cache NAME` asks its "
        "teachers beforehand, `generate MODEL` "
        "shows what a language model writes; each has its own --help. `hosts N NAME` "
        "runs one in N processes.",
    )
    parser.add_argument("name", nargs="?", help="a module in experiments/")
    parser.add_argument(
        "fields", nargs="*", metavar="field=value",
        help="changes of the experiment, e.g. optimizer.learning_rate=1e-4",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="of the student (default 0)")
    options.add(parser)
    options.add_hosts(parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        if arguments and arguments[0] in _COMMANDS:
            module = importlib.import_module(_COMMANDS[arguments[0]])
            return module.main(arguments[1:])
        return _run(_parser().parse_intermixed_args(arguments))
    except UserError as error:
        return _failed(str(error), debug)
    except KeyboardInterrupt:
        # A second Ctrl-C, or one before training began.
        print("interrupted", file=sys.stderr)
        return hosts.fail("interrupted", 130)
    except (MemoryError, RuntimeError) as error:
        reason = _shortage(error)
        if not reason:
            return _defect(error)
        return _failed(reason, debug)
    except OSError as error:
        # A full disk, no permission: the environment's fault, not this code's.
        what = error.filename or "input/output"
        return _failed(f"{what}: {error.strerror or error}", debug)
    except Exception as error:
        return _defect(error)


def _failed(reason: str, debug: bool) -> int:
    """Says in a line why there is no result."""
    if debug:
        traceback.print_exc()
    hosts.tell(f"error: {reason}")
    return hosts.fail(reason, 2)


def _defect(error: Exception) -> int:
    if hosts.several():
        return hosts.fail_of(error)
    raise error


def _shortage(error: MemoryError | RuntimeError) -> str:
    """What the machine does not have, in a line; nothing for another error."""
    first = (str(error).splitlines() or [""])[0]
    if is_out_of_memory(error):
        what = f" ({first:.200})" if first else ""
        return (
            f"out of memory{what}; a lower batch_size needs less, and so does a higher "
            "num_microbatches"
        )
    if "home directory" in first:  # pathlib's
        return "a path begins with ~ and there is no such home; give it without ~"
    return ""


def _run(given: argparse.Namespace) -> int:
    # Imports take seconds; --help and mistyped options should not wait for them.
    options.start()

    from kd import catalog

    if given.name is None:
        print(f"Which experiment? make exp NAME=...\n{catalog.listing()}")
        return 2

    import tqdm

    from kd import run
    from kd.hosts import checks
    from kd.report.table import final_table
    from kd.train.mesh import data_mesh
    from kd.train.signals import Interrupted

    runs = options.runs(given)
    options.join(given, runs)
    scale, why = options.scale(given)
    seed = [] if given.seed is None else [f"seed={given.seed}"]
    fields = [*given.fields, *seed]
    experiment = options.configured(catalog.load(given.name, scale), given, fields)
    checks.check(experiment, runs)
    tqdm.tqdm.write(f"{given.name}, seed {experiment.seed}, scale {scale} ({why})")
    if hosts.several():
        tqdm.tqdm.write(hosts.described())
    try:
        workspace = run.Workspace(runs, scale, data_mesh(), tqdm.tqdm.write)
        summary = run.run(experiment, given.name, workspace)
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        hosts.leave()
        return interrupted.exit_status
    directory = runs / given.name / str(experiment.seed)
    print(final_table(summary, directory=directory))
    hosts.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
