"""From an experiment to its results: data, networks, training, evaluation, report."""

from kd.run.workflow import Workspace, folder_of, make, read, run

__all__ = ["Workspace", "folder_of", "make", "read", "run"]
