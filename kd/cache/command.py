"""`python -m kd cache NAME [field=value ...]`: what `make cache` calls.

A run asks its teachers by itself; this does so apart from it, and trains nothing but
the teachers, where that has not been done.
"""

import argparse
import sys
from typing import Any

from kd import options
from kd.errors import UserError


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    given = _parser().parse_intermixed_args(arguments)
    if given.name is None:
        raise UserError("of which experiment? make cache NAME=...")
    options.start()

    import tqdm

    from kd import catalog
    from kd.run.cache import cache
    from kd.run.workspace import Workspace
    from kd.train.mesh import data_mesh
    from kd.train.signals import Interrupted

    runs = options.runs(given)
    scale, _ = options.scale(given)
    experiment = options.configured(
        catalog.load(given.name, scale), given, given.fields
    )
    workspace = Workspace(runs, scale, data_mesh(), tqdm.tqdm.write)
    try:
        answers = cache(experiment, workspace)
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return interrupted.exit_status
    for kept in answers.kept:
        print(_line(kept.facts))
    if not answers.kept:
        print(f"all logits: {workspace.networks / 'answers'}")
    return 0


def _line(facts: dict[str, Any]) -> str:
    """How what is kept differs from what the teacher says."""
    shown = [
        f"{name.replace('_', ' ')} {max(values['mean']):.2g} (at most "
        f"{max(values['max']):.2g})"
        for name, values in facts.items()
        if isinstance(values, dict) and "mean" in values
    ]
    return (
        f"{facts['bytes_per_prediction']:,} bytes a prediction; on "
        f"{facts['sample']['examples']} examples {', '.join(shown)}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = options.Parser(
        prog="python -m kd cache",
        description="Asks the teachers of an experiment about its training data, once, "
        "so that its runs find the answers.",
    )
    parser.add_argument("name", nargs="?", help="a module in experiments/")
    parser.add_argument(
        "fields", nargs="*", metavar="field=value",
        help="changes of the experiment, such as answers=cached keep=64",
    )  # fmt: skip
    options.add(parser)
    return parser
