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
from typing import Any

from kd import options
from kd.errors import UserError


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    given = _parser().parse_intermixed_args(arguments)
    options.start()

    import tqdm

    from kd import catalog, run
    from kd.compare.cells import cells, make
    from kd.train.mesh import data_mesh
    from kd.train.signals import Interrupted

    if given.name is None:
        print(f"Which table? make table NAME=...\n{catalog.listing(catalog.TABLES)}")
        return 2
    if given.jobs < 1:
        raise UserError(f"JOBS must be at least 1, got {given.jobs}")
    scale, _ = options.scale(given)
    table = _configured(catalog.load(given.name, scale, catalog.TABLES), given)
    say = tqdm.tqdm.write
    quiet = say if given.verbose else _ignore
    workspace = run.Workspace(options.runs(given), scale, data_mesh(), quiet)
    chosen = _chosen(table, given)
    say(
        f"{given.name}: {run.read(chosen.rows[chosen.baseline].data, workspace).origin}"
    )
    wanted = cells(chosen, workspace)
    if given.check:
        return _check(wanted, workspace, given.check, say)
    others = _others(given, arguments)
    try:
        make(wanted, workspace, say=say, together=_together(given))
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
    return _write(chosen, wanted, given, say)


def _ignore(text: str) -> None:
    """What single runs say is in their folders."""


def _parser() -> options.Parser:
    parser = options.Parser(
        prog="python -m kd table", description="Makes a table of many runs."
    )
    parser.add_argument("name", nargs="?", help="a module in experiments/tables/")
    parser.add_argument(
        "fields", nargs="*", metavar="field=value", help="changes of every row"
    )
    options.add(parser)
    parser.add_argument("--row", help="only this row")
    parser.add_argument("--seeds", help="only these, such as 0,1")
    parser.add_argument(
        "--results", type=pathlib.Path,
        help="folder of the pages (default: results)",
    )  # fmt: skip
    parser.add_argument(
        "--together", action=argparse.BooleanOptionalAction,
        help="train the seeds of a row in one program (default: on an accelerator)",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="processes at work")
    parser.add_argument(
        "--check", type=int, default=0, metavar="N",
        help="make N finished runs again, chosen at random, and compare",
    )  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="show what runs say")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser


def _together(given: argparse.Namespace) -> bool:
    """Whether the seeds of a row train in one program: a CPU has no time to gain."""
    from kd import environment

    return environment.backend() != "cpu" if given.together is None else given.together


def _configured(table: Any, given: argparse.Namespace) -> Any:
    rows = {
        name: options.configured(experiment, given, given.fields)
        for name, experiment in table.rows.items()
    }
    return _replaced(table, rows=rows)


def _chosen(table: Any, given: argparse.Namespace) -> Any:
    """The part of the table that is asked for; itself where that is all."""
    if not given.row and not given.seeds:
        return table
    rows, seeds, baseline = table.rows, table.seeds, table.baseline
    if given.row:
        if given.row not in rows:
            raise UserError(f"no row {given.row!r}; the rows are {', '.join(rows)}")
        rows, baseline = {given.row: rows[given.row]}, given.row
    if given.seeds:
        try:
            seeds = tuple(int(part) for part in given.seeds.split(","))
        except ValueError:
            raise UserError(
                f"SEEDS={given.seeds}: expected whole numbers between commas"
            ) from None
    return _replaced(
        table,
        rows=rows,
        seeds=seeds,
        baseline=baseline,
        claims=() if given.row else table.claims,
        published={} if given.row else table.published,
    )


def _replaced(table: Any, **changes: Any) -> Any:
    try:
        return dataclasses.replace(table, **changes)
    except ValueError as error:
        raise UserError(str(error)) from error


def _others(
    given: argparse.Namespace, arguments: list[str]
) -> list[subprocess.Popen[bytes]]:
    """The other processes of JOBS: each takes the runs that nobody is at."""
    if given.worker:
        return []
    command = [sys.executable, "-m", "kd", "table", *arguments, "--worker"]
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
            again = pathlib.Path(folder) / cell.directory.name
            if len(seeds) == 1:
                run.make(cell.experiment, workspace, directory=again)
            else:
                experiments = [
                    dataclasses.replace(cell.experiment, seed=seed) for seed in seeds
                ]
                run.make_together(experiments, workspace, networks=again.parent)
            ours = cell._replace(directory=again).summary()["student"]
        theirs = before["student"]
        same = ours == theirs
        different += not same
        verdict = "the same scores" if same else f"differs: {theirs} then, {ours} now"
        say(f"{cell.row}, seed {cell.seed}: {verdict}")
    return 1 if different else 0


def _write(table: Any, wanted: Any, given: argparse.Namespace, say: Any) -> int:
    from kd import catalog, environment
    from kd.atomic import atomic_write
    from kd.compare import page, text, words
    from kd.compare.judge import judge

    device = environment.device()
    versions = environment.versions()
    record = {
        "name": given.name,
        "headline": catalog.headline(given.name, catalog.TABLES),
        **judge(table, wanted),
        "made": {
            "command": _command(given),
            "device": f"{device['num_devices']} {device['kind']}, "
            f"{device['num_cores']} cores",
            "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(
                timespec="seconds"
            ),
        },
    }
    folder = (given.results or pathlib.Path("results")).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    _keep_another(folder, record, say)
    files = {
        "json": json.dumps(record, indent=1, allow_nan=False) + "\n",
        "md": text.markdown(record),
        "csv": text.comma_separated(record),
        "html": page.html(record),
    }
    for ending, content in files.items():
        with atomic_write(folder / f"{given.name}.{ending}") as file:
            file.write(content)
    say(words.gap(record))
    say(f"page        {folder / given.name}.html")
    say(f"table       {folder / given.name}.md")
    return 0


def _command(given: argparse.Namespace) -> str:
    """The command, without the places of this machine."""
    fields = [_without_place(field) for field in given.fields]
    changes = f' ARGS="{shlex.join(fields)}"' if fields else ""
    scale = "" if given.scale == "auto" else f" SCALE={given.scale}"
    data = " DATA_DIR=~/data" if given.data_dir else ""
    weights = " WEIGHTS=~/weights" if given.weights else ""
    asked = {None: "", True: " TOGETHER=1", False: " TOGETHER=0"}
    together = asked[given.together]
    return f"make table NAME={given.name}{scale}{data}{weights}{together}{changes}"


def _without_place(field: str) -> str:
    """`teacher=DIR` for a folder that is there; the record has what lies in it."""
    path, _, value = field.partition("=")
    return f"{path}=DIR" if pathlib.Path(value).expanduser().is_dir() else field


def _keep_another(folder: pathlib.Path, record: dict[str, Any], say: Any) -> None:
    """Moves the pages of another version of the table aside: kept, not mixed."""
    there = folder / f"{record['name']}.json"
    if not there.exists():
        return
    try:
        before = json.loads(there.read_text())
        finished = before["made"]["finished"]
        same = _what(before) == _what(record)
    except (ValueError, KeyError, TypeError):
        finished, same = "damaged", False
    if same:
        return
    aside = folder / "before" / finished.replace(":", "")
    aside.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{record['name']}.*"):
        path.replace(aside / path.name)
    say(f"the table was another before; its pages are kept in {aside}")


def _what(record: dict[str, Any]) -> Any:
    """Which table it is, whatever came out."""
    rows = [(row["name"], row["experiment"]) for row in record["rows"]]
    named = (record["data"], record["baseline"], record["seeds"], rows)
    return json.loads(json.dumps(named))
