"""`python -m kd table NAME [options] [field=value ...]`: what `make table` calls."""

import argparse
import dataclasses
import datetime
import json
import pathlib
import random
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from kd import options
from kd.errors import UserError


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    given = _parser().parse_intermixed_args(arguments)
    options.start()

    import tqdm

    from kd import catalog, run
    from kd.compare import selected
    from kd.compare.cells import cells, make
    from kd.train.mesh import data_mesh
    from kd.train.signals import Interrupted

    if given.name is None:
        print(f"Which table? make table NAME=...\n{catalog.listing(catalog.TABLES)}")
        return 2
    check_jobs(given)
    scale, _ = options.scale(given)
    chosen = _chosen(catalog.load(given.name, scale, catalog.TABLES), given)
    chosen = configured(chosen, given)
    say = tqdm.tqdm.write
    quiet = say if given.verbose else ignore
    workspace = run.Workspace(options.runs(given), scale, data_mesh(), quiet)
    path = results(given) / f"{given.name}.tuned.json"
    tuning = selected.read(path) if given.tuned == "auto" else None
    origin = run.read(chosen.rows[chosen.baseline].data, workspace).origin
    settings = f"settings of {path}" if tuning else "not tuned"
    say(f"{given.name}: {origin}; {settings}")
    if tuning:
        chosen = selected.applied(
            chosen, tuning, path, lambda row: run.folder_of(row, workspace).name
        )
    wanted = cells(chosen, workspace)
    if given.check:
        return _check(wanted, workspace, given.check, say)
    others = other_processes("table", given, arguments)
    try:
        make(wanted, workspace, say=say, together=together(given))
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return interrupted.exit_status
    finally:
        for process in others:
            process.wait()
    if given.worker:
        return 0
    if given.row or (given.seeds and given.results is None):
        say("a part of the table: no page is written; fewer SEEDS get one in RESULTS=")
        return 0
    return _write(chosen, wanted, tuning, given, say)


def ignore(text: str) -> None:
    """What single runs say is in their folders."""


def _parser() -> options.Parser:
    parser = options.Parser(
        prog="python -m kd table", description="Makes a table of many runs."
    )
    parser.add_argument("name", nargs="?", help="a module in experiments/tables/")
    add_options(parser)
    parser.add_argument("--seeds", help="only these, such as 0,1")
    parser.add_argument(
        "--tuned", choices=("auto", "no"), default="auto",
        help="auto: with the settings that make sweep selected, where it did",
    )  # fmt: skip
    parser.add_argument(
        "--check", type=int, default=0, metavar="N",
        help="make N finished runs again, chosen at random, and compare",
    )  # fmt: skip
    return parser


def add_options(parser: options.Parser) -> None:
    """Adds those that say which rows, where, and by how many processes."""
    parser.add_argument(
        "fields", nargs="*", metavar="field=value", help="changes of every row"
    )
    options.add(parser)
    parser.add_argument("--row", help="only this row")
    parser.add_argument(
        "--results", type=pathlib.Path,
        help="folder of the pages (default: results)",
    )  # fmt: skip
    parser.add_argument(
        "--together", action=argparse.BooleanOptionalAction,
        help="train the seeds of a row in one program (default: on an accelerator)",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="processes at work")
    parser.add_argument("--verbose", action="store_true", help="show what runs say")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)


def check_jobs(given: argparse.Namespace) -> None:
    """Raises UserError where nobody would be at work."""
    if given.jobs < 1:
        raise UserError(f"JOBS must be at least 1, got {given.jobs}")


def results(given: argparse.Namespace) -> pathlib.Path:
    """The folder of pages."""
    return (given.results or pathlib.Path("results")).expanduser()


def together(given: argparse.Namespace) -> bool:
    """Whether the seeds of a row train in one program: a CPU has no time to gain."""
    from kd import environment

    return environment.backend() != "cpu" if given.together is None else given.together


def configured(table: Any, given: argparse.Namespace) -> Any:
    """The table with its rows as the options say."""
    rows = {
        name: options.configured(experiment, given, given.fields)
        for name, experiment in table.rows.items()
    }
    return replaced(table, rows=rows)


def _chosen(table: Any, given: argparse.Namespace) -> Any:
    """The part of the table that is asked for; itself where that is all."""
    if not given.row and not given.seeds:
        return table
    rows, seeds, baseline = table.rows, table.seeds, table.baseline
    if given.row:
        check_row(table, given.row)
        rows, baseline = {given.row: rows[given.row]}, given.row
    if given.seeds:
        seeds = seeds_in(given.seeds)
    return replaced(
        table,
        rows=rows,
        seeds=seeds,
        baseline=baseline,
        claims=() if given.row else table.claims,
        published={} if given.row else table.published,
    )


def check_row(table: Any, row: str) -> None:
    """Raises UserError where the table has no such row."""
    if row not in table.rows:
        raise UserError(f"no row {row!r}; the rows are {', '.join(table.rows)}")


def seeds_in(text: str) -> tuple[int, ...]:
    """Those between the commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"SEEDS={text}: expected whole numbers between commas"
        ) from None


def replaced(record: Any, **changes: Any) -> Any:
    """`dataclasses.replace`, for changes that a person asked for."""
    try:
        return dataclasses.replace(record, **changes)
    except ValueError as error:
        raise UserError(str(error)) from error


def other_processes(
    verb: str, given: argparse.Namespace, arguments: list[str]
) -> list[subprocess.Popen[bytes]]:
    """The other processes of JOBS: each takes the runs that nobody is at."""
    if given.worker:
        return []
    command = [sys.executable, "-m", "kd", verb, *arguments, "--worker"]
    return [subprocess.Popen(command) for _ in range(given.jobs - 1)]


def _check(wanted: Any, workspace: Any, count: int, say: Any) -> int:
    """Makes finished runs again elsewhere; 1 where one comes out differently."""
    from kd import run

    finished = [cell for cell in wanted if cell.finished]
    if not finished:
        raise UserError("no run of the table is finished, so none can be checked")
    different = 0
    for cell in random.sample(finished, min(count, len(finished))):
        before = cell.summary()
        # Alone, one that trained together would differ by rounding.
        seeds = before.get("together", [cell.seed])
        with tempfile.TemporaryDirectory(dir=workspace.runs) as folder:
            again = pathlib.Path(folder) / str(cell.seed)
            if len(seeds) == 1:
                run.make(cell.experiment, workspace, directory=again)
            else:
                run.make_together(
                    [dataclasses.replace(cell.experiment, seed=seed) for seed in seeds],
                    workspace,
                    directories=[pathlib.Path(folder) / str(seed) for seed in seeds],
                )
            ours = cell._replace(directory=again).summary()["student"]
        theirs = before["student"]
        same = ours == theirs
        different += not same
        verdict = "the same scores" if same else f"differs: {theirs} then, {ours} now"
        say(f"{cell.row}, seed {cell.seed}: {verdict}")
    return 1 if different else 0


def _write(table: Any, wanted: Any, tuning: Any, given: Any, say: Any) -> int:
    from kd import catalog
    from kd.compare import kept, page, picture, text, words
    from kd.compare.judge import judge

    record: dict[str, Any] = {
        "name": given.name,
        "headline": catalog.headline(given.name, catalog.TABLES),
        **judge(table, wanted),
        "tuning": tuning,
        "made": made(command("table", given) + _part(given)),
    }
    tuned = tuning["rows"] if tuning else []
    chosen = {row["name"]: row["selected"] or () for row in tuned}
    for row in record["rows"]:
        again = command("table", given, chosen.get(row["name"]))
        row["command"] = f'{again} ROW="{row["name"]}"'
    files = {
        "json": json.dumps(record, indent=1, allow_nan=False) + "\n",
        "md": text.markdown(record),
        "csv": text.comma_separated(record),
        "html": page.html(record),
        "svg": picture.on_white(picture.picture(record)) + "\n",
    }
    folder = results(given)
    kept.write(folder, given.name, files, what=_what, say=say)
    say(words.gap(record))
    say(f"page        {folder / given.name}.html")
    say(f"table       {folder / given.name}.md")
    return 0


def made(command: str) -> dict[str, str]:
    """By which command, on which machine, with what, and when."""
    from kd import environment

    device, versions = environment.device(), environment.versions()
    now = datetime.datetime.now(datetime.UTC)
    return {
        "command": command,
        "device": f"{device['num_devices']} {device['kind']}, "
        f"{device['num_cores']} cores",
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
        "finished": now.isoformat(timespec="seconds"),
    }


def command(
    verb: str, given: argparse.Namespace, settings: Sequence[str] | None = None
) -> str:
    """The command, without the places of this machine.

    Args:
        verb: the target of make.
        given: what it was called with.
        settings: that were selected for a row, to be said instead of read.
    """
    fields = [*map(_without_place, given.fields), *(settings or ())]
    changes = f' ARGS="{shlex.join(fields)}"' if fields else ""
    scale = "" if given.scale == "auto" else f" SCALE={given.scale}"
    data = " DATA_DIR=~/data" if given.data_dir else ""
    weights = " WEIGHTS=~/weights" if given.weights else ""
    said = settings is not None or getattr(given, "tuned", "auto") == "no"
    unread = " TUNED=no" if said else ""
    asked = {None: "", True: " TOGETHER=1", False: " TOGETHER=0"}[given.together]
    places = f"{scale}{data}{weights}{asked}"
    return f"make {verb} NAME={given.name}{places}{unread}{changes}"


def _part(given: argparse.Namespace) -> str:
    """What of a table was asked for, where that was not all of it."""
    row = f' ROW="{given.row}"' if given.row else ""
    return row + (f" SEEDS={given.seeds}" if given.seeds else "")


def _without_place(field: str) -> str:
    """`teacher=DIR` for a folder that is there; the record has what lies in it."""
    path, _, value = field.partition("=")
    return f"{path}=DIR" if pathlib.Path(value).expanduser().is_dir() else field


def _what(record: dict[str, Any]) -> Any:
    """Which table it is, whatever came out."""
    rows = [(row["name"], row["experiment"]) for row in record["rows"]]
    tuned = record.get("tuning") or {}
    budget = [tuned.get(name) for name in ("grid", "seeds", "trials")]
    protocol = record.get("protocol", "last")
    return record["data"], record["baseline"], record["seeds"], rows, protocol, budget
