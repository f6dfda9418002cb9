"""`python -m kd.retrieval NAME [options] [field=value ...]`.

Scores the networks of a finished run by retrieval: the student, and those that it was
made from, and that these were. Dev examples are queries, the training set is searched.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from kd import catalog, options, run
from kd.analysis.retrieval import retrieve
from kd.data.task import Prepared
from kd.errors import UserError
from kd.experiment import Experiment
from kd.networks import load
from kd.networks.answers import vector_of
from kd.networks.load import Found
from kd.networks.predict import predictor
from kd.train.mesh import data_mesh, replicate
from kd.types import Embedding


def main(arguments: list[str]) -> int:
    """Prints a line for every network of a run; returns the exit status."""
    parser = options.Parser(prog="python -m kd.retrieval")
    parser.add_argument("name", help="a module in experiments/")
    parser.add_argument(
        "fields", nargs="*", metavar="field=value", help="those that it was run with"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the run (default 0)")
    parser.add_argument(
        "--queries", type=int, default=1000, help="the first of dev (default 1000)"
    )
    parser.add_argument(
        "--layer", type=int, default=-1, help="of features (default -1)"
    )
    options.add(parser)
    given = parser.parse_intermixed_args(arguments)
    options.start()
    scale, _ = options.scale(given)
    fields = [*given.fields, f"seed={given.seed}"]
    experiment = options.configured(catalog.load(given.name, scale), given, fields)
    if not experiment.data.target.has_classes:
        raise UserError(
            f"{given.name}: {experiment.data.name} asks for a number, and retrieval is "
            "of classes"
        )
    workspace = run.Workspace(options.runs(given), scale, data_mesh(), print)
    directory = workspace.runs / given.name / str(given.seed)
    if not (directory / "summary.json").exists():
        raise UserError(f"{directory}: there is no finished run; make exp first")
    print(f"{'mAP':>34}{'top 100':>20}")
    print(" " * 24 + f"{'cosine':>10}{'euclidean':>10}" * 2)
    student = "student", directory / "model"
    for name, place in [student, *networks(experiment, workspace)]:
        data, ours, theirs = features(place, experiment, workspace, given.layer)
        queries = slice(given.queries)
        found = [
            retrieve(
                ours[queries],
                data.dev.labels[queries],
                theirs,
                data.train.labels,
                distance=distance,
            )
            for distance in ("cosine", "euclidean")
        ]
        scores = [r.mean_average_precision for r in found]
        scores += [r.precision for r in found]
        print(f"{name:<24}" + "".join(f"{score:>10.2%}" for score in scores))
    return 0


def networks(
    experiment: Experiment, workspace: run.Workspace, whose: str = ""
) -> Iterator[tuple[str, Path]]:
    """Recipes that an experiment is made from, and that these are, by their roles."""
    for role, network in experiment.made_from.items():
        if network.recipe is not None and not network.place and network.change is None:
            name = f"{whose}{role}"
            folder = run.folder_of(network.recipe, workspace)
            yield name, folder / ("best" if network.checkpoint == "best" else "model")
            yield from networks(network.recipe, workspace, f"{name}'s ")


def features(
    place: Path, experiment: Experiment, workspace: run.Workspace, layer: int
) -> tuple[Prepared, Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """The data as a network reads them, and its features of dev and of train."""
    task = experiment.data
    data = task.prepare(run.read(task, workspace), place)
    network = load.load(
        Found(str(place), ""), task, data, experiment.compute_dtype, any_outputs=True
    )
    mesh = workspace.mesh
    extract = predictor(network.model, mesh=mesh, of=vector_of(Embedding(layer)))
    params = replicate(network.params, mesh)
    return data, extract(params, data.dev), extract(params, data.train)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
