"""The answers of an experiment's teachers, apart from its runs."""

import contextlib
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator

from kd import hosts
from kd.errors import UserError
from kd.experiment import Experiment
from kd.networks.answers import Answers
from kd.run import ingredients, workflow
from kd.run.obtain import check_places
from kd.run.workspace import Workspace, read


@contextlib.contextmanager
def _folder_of_all(workspace: Workspace) -> Iterator[pathlib.Path]:
    """A folder that all processes see, for a while."""

    def make() -> str:
        workspace.networks.mkdir(parents=True, exist_ok=True)
        return tempfile.mkdtemp(prefix=".inputs-", dir=workspace.networks)

    directory = hosts.of_first(make)
    try:
        yield pathlib.Path(directory)
        hosts.of_all(None)  # Nobody reads any more.
    finally:
        if hosts.is_first():
            shutil.rmtree(directory, ignore_errors=True)


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
    with _folder_of_all(workspace) as directory:
        check_places(experiment, directory)
        made_from = ingredients.gather(
            experiment,
            corpus,
            [directory / "model"],
            workflow.obtain_all(experiment, workspace),
            workspace,
            begun,
        )
    answers = made_from.answers
    assert answers is not None
    if answers.in_step:
        raise UserError("its teachers run in every step, so there is nothing to keep")
    return answers
