"""`python -m kd sweep NAME --grid=... [options]`: what `make sweep` calls."""

import argparse
import difflib
import json
import sys
from typing import Any

from kd import options
from kd.compare import command
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
        print("Which table or experiment? make sweep NAME=... GRID=...")
        print(catalog.listing(catalog.TABLES), catalog.listing(), sep="\n")
        return 2
    command.check_jobs(given)
    scale, _ = options.scale(given)
    table = command.configured(_table(given.name, scale), given)
    table = _with_tuning(table, given)
    if given.row:
        command.check_row(table, given.row)
    trials = table.tuning.draw(table.rows)
    every = selected.table_of(trials, table)
    say = tqdm.tqdm.write
    quiet = say if given.verbose else command.ignore
    workspace = run.Workspace(options.runs(given), scale, data_mesh(), quiet)
    corpus = run.read(table.rows[table.baseline].data, workspace)
    say(f"{given.name}: {corpus.origin}")
    say(_budget(table, trials))
    wanted = cells(every, workspace)
    if given.row:
        own = {selected.name_of(given.row, s) for s in trials.settings[given.row]}
        wanted = [cell for cell in wanted if cell.row in own]
    others = command.other_processes("sweep", given, arguments)
    try:
        make(wanted, workspace, say=say, together=command.together(given))
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return interrupted.exit_status
    finally:
        for process in others:
            process.wait()
    if given.worker:
        return 0
    if given.row:
        say("a part of the sweep: nothing is selected before all rows had their trials")
        return 0
    if left := [cell for cell in wanted if not cell.finished and not cell.failure]:
        raise UserError(
            f"{len(left)} runs have no result, first that of {left[0].row}, seed "
            f"{left[0].seed}, so nothing is selected; the same command tries them "
            "again, and a GRID without their settings leaves them out"
        )
    chosen = selected.choose(
        table, trials, wanted, lambda row: run.folder_of(row, workspace).name
    )
    _write(chosen, corpus, given, say)
    return 0


def _parser() -> options.Parser:
    parser = options.Parser(
        prog="python -m kd sweep",
        description="Tries settings of a table's rows, or of an experiment, and "
        "selects the best of each.",
    )
    parser.add_argument("name", nargs="?", help="of a table, or of an experiment")
    command.add_options(parser)
    parser.add_argument("--grid", help='such as "optimizer.learning_rate=[3e-4,1e-3]"')
    parser.add_argument(
        "--trials", type=int, help="settings of every row, drawn from the grid"
    )
    parser.add_argument("--seeds", help="to tune with (default: 100,101)")
    return parser


def _table(name: str, scale: Any) -> Any:
    """A table; an experiment is one of a single row."""
    from kd import catalog
    from kd.compare.table import Table

    tables, experiments = catalog.names(catalog.TABLES), catalog.names()
    if name in tables:
        return catalog.load(name, scale, catalog.TABLES)
    if name not in experiments:
        close = difflib.get_close_matches(name, [*tables, *experiments], n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(
            f"no table or experiment {name!r}{hint} (make sweep alone lists them)"
        )
    experiment = catalog.load(name, scale)
    return Table(rows={name: experiment}, baseline=name, seeds=(experiment.seed,))


def _with_tuning(table: Any, given: argparse.Namespace) -> Any:
    """The table with the tuning that is asked for, or with its own."""
    from kd.compare.tuning import Tuning, grid_in

    changes: dict[str, Any] = {}
    if given.grid is not None:
        changes["grid"] = grid_in(given.grid)
    elif table.tuning is None:
        raise UserError(
            f"{given.name} says no tuning of its own: which settings? For example "
            'GRID="optimizer.learning_rate=[3e-4,1e-3]"'
        )
    if given.seeds:
        changes["seeds"] = command.seeds_in(given.seeds)
    if given.trials is not None:
        changes["trials"] = given.trials
    try:
        new = Tuning(**(vars(table.tuning) if table.tuning else {}) | changes)
    except ValueError as error:
        raise UserError(str(error)) from error
    if len(table.rows) > 1:
        return command.replaced(table, tuning=new)
    # There are no others that this one must share its batch size or its sample with.
    free = [*map(_compared_by, new.grid)]
    return command.replaced(table, tuning=new, differ_in=(*table.differ_in, *free))


def _compared_by(field: str) -> str:
    """What rows that differ in this field differ in, as a table says it."""
    first, *rest = field.split(".")
    if first == "data":
        return ".".join((first, *rest[:1]))
    return "teachers" if first == "teacher" else first


def _budget(table: Any, trials: Any) -> str:
    from kd.compare import words

    few = min(trials.there, key=lambda name: trials.there[name])
    most = max(trials.there.values())
    found = {"trials": trials.num, "seeds": table.tuning.seeds}
    text = f"{words.budget(found)} for every row"
    if table.tuning.trials > trials.num:
        text += f", all that {few!r} has, not {table.tuning.trials}"
    if most > trials.num:
        text += f"; drawn from up to {most} settings of a row"
    return text


def _write(chosen: Any, corpus: Any, given: argparse.Namespace, say: Any) -> None:
    from kd import catalog
    from kd.compare import kept, selected, words

    record: dict[str, Any] = {
        "name": given.name,
        **chosen,
        "data": {"origin": corpus.origin, "fingerprint": corpus.fingerprint},
        "made": command.made(_command(given)),
    }
    files = {"tuned.json": json.dumps(record, indent=1, allow_nan=False) + "\n"}
    folder = command.results(given)
    kept.write(folder, given.name, files, what=selected.what, say=say)
    metric = record["metric"]
    for row in record["rows"]:
        score = f"{metric['title']} {words.value(row['mean'], metric)}"
        say(f"{row['name']}: {words.setting(row['selected'])}; {score}")
    say(f"selected    {folder / given.name}.tuned.json")
    own = record["rows"][0]["selected"]
    if own and given.name not in catalog.names(catalog.TABLES):
        say(f'run it      make exp NAME={given.name} ARGS="{" ".join(own)}"')


def _command(given: argparse.Namespace) -> str:
    text = command.command("sweep", given)
    for name in ("grid", "trials", "seeds"):
        value = getattr(given, name)
        if value is not None:
            text += f' {name.upper()}="{value}"'
    return text
