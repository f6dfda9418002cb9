"""The answers of an experiment's teachers, apart from its runs."""

import pathlib
import tempfile
import time

from kd.errors import UserError
from kd.experiment import Experiment
from kd.networks.answers import Answers
from kd.run import ingredients, workflow
from kd.run.obtain import check_places
from kd.run.workspace import Workspace, read


def cache(experiment: Experiment, workspace: Workspace) -> Answers:
    """What the teachers of an experiment say, computed or found, as its runs find it.

    Args:
        experiment: of the runs.
        workspace: where.

    Raises:
        UserError: its runs would keep no answers; or as `kd.run.run`.
    """
    if not experiment.asks_teachers:
        raise UserError("the objective asks no teacher, so there is nothing to keep")
    if experiment.answers == "live":
        raise UserError("answers=live keeps nothing; set answers=cached")
    begun = time.perf_counter()
    corpus = read(experiment.data, workspace)
    workspace.say(f"data: {corpus.origin}")
    with tempfile.TemporaryDirectory() as directory:
        check_places(experiment, pathlib.Path(directory))
        made_from = ingredients.gather(
            experiment,
            corpus,
            [pathlib.Path(directory) / "model"],
            workflow.obtain_all(experiment, workspace),
            workspace,
            begun,
        )
    answers = made_from.answers
    assert answers is not None
    if answers.in_step:
        raise UserError("its teachers run in every step, so there is nothing to keep")
    return answers
