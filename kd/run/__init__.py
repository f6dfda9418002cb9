"""From an experiment to its results: data, networks, training, evaluation, report."""

from kd.run.workflow import Workspace, run

__all__ = ["Workspace", "run"]
