"""Where runs take place, and what those of one process share."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from kd import hosts
from kd.data import sources
from kd.data.sample import Sampled
from kd.data.task import Corpus, Task
from kd.experiment import Experiment
from kd.run.obtain import key
from kd.run.shared import Shared


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Where runs take place, and what those of one process share."""

    runs: pathlib.Path
    """Folder of all runs; networks made on the way go to its folder `networks`."""
    scale: str
    mesh: Mesh
    say: Callable[[str], Any]
    """Shows a line to the person who waits."""
    shared: Shared = dataclasses.field(default_factory=Shared)

    @property
    def networks(self) -> pathlib.Path:
        """Folder of the runs that are found by what they are."""
        return self.runs / "networks"


def read(task: Task, workspace: Workspace) -> Corpus:
    """The records of a task, read once."""
    task = task.with_sample_of(Sampled())  # Of which the records know nothing.

    def load_and_tell() -> Corpus:
        # Downloads and preparation are done once.
        corpus = hosts.then_others(lambda: sources.load(task))
        if hosts.several():
            hosts.agree(
                "the data",
                f"{corpus.origin}, SHA-256 {corpus.fingerprint[:12]}",
                "all processes must find the same in DATA_DIR, or through TFDS",
            )
        if corpus.notice:
            workspace.say(corpus.notice)
        return corpus

    return workspace.shared.once("records", task, load_and_tell)


def folder_of(experiment: Experiment, workspace: Workspace) -> pathlib.Path:
    """Where `make` runs an experiment: the folder of the network that it yields."""
    fingerprint = read(experiment.data, workspace).fingerprint
    return workspace.networks / key(experiment, fingerprint)
