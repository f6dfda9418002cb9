"""`python -m kd memory NAME [options] [field=value ...]`: what `make memory` calls.

Says what a run takes in memory before any network is trained: the step that the run
would compile is compiled, from shapes.
"""

import pathlib
import tempfile
from typing import TYPE_CHECKING

from kd import options

if TYPE_CHECKING:
    from kd.experiment import Experiment
    from kd.run.requirements import Requirements, Size
    from kd.run.workspace import Workspace


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    given = _parser().parse_intermixed_args(arguments)
    options.start()

    from kd import catalog

    if given.name is None:
        print(f"Which experiment? make memory NAME=...\n{catalog.listing()}")
        return 2

    from kd.run.relief import relief
    from kd.run.workspace import Workspace
    from kd.train.mesh import data_mesh

    runs = options.runs(given)
    scale, why = options.scale(given)
    experiment = options.configured(
        catalog.load(given.name, scale), given, given.fields
    )
    print(f"{given.name}, scale {scale} ({why})")
    workspace = Workspace(runs, scale, data_mesh(), print)
    found = told(experiment, workspace)
    print(table(found))
    quiet = Workspace(runs, scale, workspace.mesh, lambda line: None, workspace.shared)
    print(relief(experiment, found, lambda e, compiled: told(e, quiet, compiled)))
    return 0


def told(
    experiment: "Experiment", workspace: "Workspace", compiled: bool = True
) -> "Requirements":
    """What a run of an experiment takes, whether its networks are trained or not.

    Args:
        experiment: what would be run; its networks share its data.
        workspace: where; no run is made there.
        compiled: whether the step is compiled, see `requirements`.
    """
    from kd.run.assembly import assemble
    from kd.run.outline import outline
    from kd.run.requirements import requirements
    from kd.run.workspace import read

    corpus = read(experiment.data, workspace)
    workspace.say(f"data: {corpus.origin}")
    with tempfile.TemporaryDirectory() as folder:
        made_from = outline(experiment, corpus, pathlib.Path(folder), workspace)
    assembly = assemble(
        experiment, [experiment.seed], made_from,
        mesh=workspace.mesh, shared=workspace.shared, say=workspace.say,
    )  # fmt: skip
    return requirements(experiment, assembly, made_from, compiled=compiled)


def table(found: "Requirements") -> str:
    """What a run takes, the largest first."""
    from kd.report.quantities import size
    from kd.run.requirements import TEMPORARIES, notices

    many = found.num_devices
    where = "on the device" if many == 1 else f"on each of {many} devices"
    lines = ["", f"{where}, while a step runs"]
    for one in found.device:
        lines.append(_row(one))
        if one.name == TEMPORARIES:
            lines += [_row(part, "  of which ") for part in found.within]
    lines.append(f"{'in all':<{_NAME}}{size(found.total):>{_SIZE}}")
    lines += ["", "on the host", *map(_row, found.host)]
    if found.available:
        whose = "the device has" if found.on_accelerator else "the machine has"
        lines.append(f"{whose:<{_NAME}}{size(found.available):>{_SIZE}}")
    return "\n".join([*lines, "", *notices(found.logits)])


_NAME, _SIZE = 46, 10


def _row(one: "Size", before: str = "") -> str:
    from kd.report.quantities import size

    name = f"  {before}{one.name}"
    return f"{name:<{_NAME}}{size(one.num_bytes):>{_SIZE}}  {one.note}".rstrip()


def _parser() -> options.Parser:
    parser = options.Parser(
        prog="python -m kd memory",
        description="Says what a run takes in memory, before anything is trained.",
    )
    parser.add_argument("name", nargs="?", help="a module in experiments/")
    parser.add_argument(
        "fields", nargs="*", metavar="field=value",
        help="changes of the experiment, e.g. batch_size=64",
    )  # fmt: skip
    options.add(parser)
    return parser
