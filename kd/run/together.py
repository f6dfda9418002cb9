"""Seeds of one experiment in one compiled program, each in its own folder at the end.

While they train, the state of all is in `runs/networks/together/KEY/`, by a key of
who they are; that folder is gone when they are done. Each has its own folder claimed
meanwhile, so nobody else is at work on one of them.
"""

import contextlib
import dataclasses
import hashlib
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from kd import run_directory
from kd.data.task import Corpus
from kd.errors import Diverged, UserError, is_out_of_memory
from kd.experiment import Experiment
from kd.run.obtain import check_places
from kd.run.workflow import as_network, carry_out, describe
from kd.run.workspace import Workspace, folder_of, read
from kd.run_directory import Busy


class _Group(NamedTuple):
    """Seeds that train together, and their folders."""

    experiments: list[Experiment]
    directories: list[pathlib.Path]

    @property
    def seeds(self) -> list[int]:
        return [experiment.seed for experiment in self.experiments]

    @property
    def keys(self) -> list[str]:
        return [directory.name for directory in self.directories]

    @property
    def folder(self) -> pathlib.Path:
        """Where their state is kept."""
        key = hashlib.sha256(" ".join(self.keys).encode()).hexdigest()[:12]
        return _groups_in(self.directories[0].parent) / key

    @property
    def unfinished(self) -> list[int]:
        """Places of those that have a result to come."""
        return [
            i for i, d in enumerate(self.directories) if not run_directory.is_over(d)
        ]

    def only(self, places: list[int]) -> "_Group":
        """The part of it at some places."""
        return _Group(
            [self.experiments[i] for i in places], [self.directories[i] for i in places]
        )


def make_together(
    experiments: Sequence[Experiment],
    workspace: Workspace,
    *,
    directories: Sequence[pathlib.Path] | None = None,
) -> None:
    """Runs seeds of one experiment by what they are, in one program.

    A group that was begun before goes on as it was, if all that are left of it are
    asked for. Else those that nobody is at begin as a group. So there may be some left
    that a further call makes. What a run comes to is in its folder (`folder_of`): its
    results, or why it diverged.

    Args:
        experiments: unfinished, of different seeds and else the same.
        workspace: where.
        directories: other folders than the networks' own, all in one.

    Raises:
        Busy: other processes are at work on all of them.
        UserError: as `make`; the memory is not enough for all of them.
        kd.train.loop.Interrupted: a signal asked to stop; the state of all is saved.
    """
    corpus = read(experiments[0].data, workspace)
    name, workspace = as_network(workspace)
    folders = directories or [folder_of(e, workspace) for e in experiments]
    asked = _Group(list(experiments), list(folders))
    check_places(asked.experiments[0], asked.directories[0])
    with contextlib.ExitStack() as claims:
        group = _claimed(asked, corpus, name, claims)
        if group.unfinished:  # Others may have been faster.
            _carry_out(group, corpus, name, workspace, claims)
    _tidy(asked.directories[0].parent)


def _claimed(
    asked: _Group, corpus: Corpus, name: str, claims: contextlib.ExitStack
) -> _Group:
    """The group to make now, the folders of those that are unfinished being claimed.

    Args:
        asked: who might be of it.
        corpus: the records.
        name: of the runs.
        claims: takes up the claims.

    Raises:
        Busy: other processes are at work on all of them.
    """

    def claim(group: _Group, i: int) -> Any:
        description = describe(group.experiments[i], corpus, name, "")
        return run_directory.claim(group.directories[i], description)

    others = set()
    for begun in _begun(asked):
        with contextlib.ExitStack() as all_of_it:
            try:
                for i in begun.unfinished:
                    all_of_it.enter_context(claim(begun, i))
            except Busy:
                others |= {*begun.keys}
                continue
            claims.enter_context(all_of_it.pop_all())
            return begun
    ours = []
    for i, key in enumerate(asked.keys):
        try:
            if key not in others:
                claims.enter_context(claim(asked, i))
                ours.append(i)
        except Busy:
            continue
    if not ours:
        raise Busy("other processes are at work on all of these runs")
    # One may have been finished just before.
    return asked.only([i for i in ours if i in asked.unfinished])


def _carry_out(
    group: _Group,
    corpus: Corpus,
    name: str,
    workspace: Workspace,
    claims: contextlib.ExitStack,
) -> None:
    """Trains a group that is claimed, and leaves to each what is its own."""
    alone = len(group.keys) == 1
    folder = group.directories[0] if alone else group.folder
    if not alone:
        description = describe(group.experiments[0], corpus, "together", "")
        description["run"] |= {"seed": group.seeds, "members": group.keys}
        claims.enter_context(run_directory.claim(folder, description))
    unfinished = group.unfinished
    try:
        outcomes = carry_out(
            group.experiments,
            [d if i in unfinished else None for i, d in enumerate(group.directories)],
            corpus,
            name,
            workspace,
            folder / "checkpoints",
        )
    except (MemoryError, RuntimeError) as error:
        if alone or not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory with {len(group.keys)} seeds together "
            f"({str(error).partition(chr(10))[0]:.200}); fewer SEEDS at a time need "
            "less, and so does TOGETHER=0, which trains one after the other"
        ) from error
    for directory, outcome in zip(group.directories, outcomes, strict=True):
        if isinstance(outcome, Diverged):
            run_directory.write_failure(directory, str(outcome))
    shutil.rmtree(folder / "checkpoints" if alone else folder, ignore_errors=True)


def _recorded(networks: pathlib.Path) -> Iterator[tuple[list[int], list[str]]]:
    """Seeds and keys of all groups that there are."""
    for path in sorted(_groups_in(networks).glob("*/config.json")):
        with contextlib.suppress(FileNotFoundError):  # finished just now
            found = run_directory.read_json(path)["run"]
            yield found["seed"], found["members"]


def _begun(asked: _Group) -> Iterator[_Group]:
    """Groups with a state to go on from, all that is left of which is asked for."""
    networks = asked.directories[0].parent
    for seeds, keys in _recorded(networks):
        group = _Group(
            [dataclasses.replace(asked.experiments[0], seed=seed) for seed in seeds],
            [networks / key for key in keys],
        )
        left = {keys[i] for i in group.unfinished}
        if (
            left
            and left <= {*asked.keys}
            and run_directory.has_checkpoint(group.folder)
        ):
            yield group


def _tidy(networks: pathlib.Path) -> None:
    """Removes what is left of groups whose runs are all over, however that came."""
    for _, keys in _recorded(networks):
        group = _Group([], [networks / key for key in keys])
        if not group.unfinished:
            shutil.rmtree(group.folder, ignore_errors=True)


def _groups_in(networks: pathlib.Path) -> pathlib.Path:
    return networks / "together"
