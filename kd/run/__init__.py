"""From an experiment to its results: data, networks, training, evaluation, report."""

from kd.run.together import make_together
from kd.run.workflow import make, run
from kd.run.workspace import Workspace, folder_of, read

__all__ = ["Workspace", "folder_of", "make", "make_together", "read", "run"]
