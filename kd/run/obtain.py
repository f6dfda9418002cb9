"""The trained networks that an experiment is made from, trained first if need be."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

from kd import config, hosts
from kd.data.task import Task
from kd.errors import UserError
from kd.experiment import Experiment, Network
from kd.models import saved
from kd.networks.load import Found, check_outputs, check_same, other_inputs, sizes
from kd.networks.place import model_place, with_fingerprints
from kd.run import keep
from kd.types import Architecture


def key(recipe: Experiment, corpus_fingerprint: str) -> str:
    """A name for the network that a recipe yields: 12 hexadecimal digits.

    Everything that determines the weights goes in: task, records, tokenizer, model,
    recipe, seed, and the networks that it is made from. Where the records lie and how
    often progress is logged do not.
    """
    tree = config.identity(with_fingerprints(config.to_json(recipe)))
    everything = json.dumps([tree, corpus_fingerprint], sort_keys=True)
    return hashlib.sha256(everything.encode()).hexdigest()[:12]


def check_places(experiment: Experiment, directory: pathlib.Path) -> None:
    """Looks at every network in a place now, not after hours of training another.

    Args:
        experiment: of the run.
        directory: of the run, which must not be one of the places.

    Raises:
        UserError: there is no network, or not the one that is wanted.
    """
    for role, network in experiment.made_from.items():
        if not network.place:
            assert network.recipe is not None
            if role == "start":
                _check_student(experiment.student, network)
            check_places(network.recipe, directory)
            continue
        place = model_place(network.place)
        if pathlib.Path(place).resolve() in (
            directory.resolve(),
            (directory / "model").resolve(),
        ):
            raise UserError(
                f"{role}: {network.place} is the folder of this run itself; choose "
                "another folder with RUNS="
            )
        hosts.then_others(lambda place=place: saved.fetch(place))
        found = sizes(Found(place, network.place, network.change))
        try:
            experiment.data.check(found, role)
        except ValueError as error:
            raise UserError(f"{network.place}: {error}") from error
        if role != "start":
            if experiment.objective.reads_logits:
                check_outputs(place, experiment.data)
        elif experiment.student is not None:
            check_same(experiment.student, found, network.place)
    _check_inputs(experiment)


def _check_student(student: Architecture | None, start: Network) -> None:
    """Raises UserError where the student is known not to be what its start yields."""
    assert start.recipe is not None
    theirs = start.recipe.student
    if student is None or theirs is None:
        return
    if start.change is not None:
        try:
            theirs, _ = start.change(theirs, None)
        except ValueError as error:
            raise UserError(f"start: {error}") from error
    check_same(student, theirs, "the network of its recipe")


def _check_inputs(experiment: Experiment) -> None:
    """Raises UserError where two networks are known to read different inputs."""
    sources = [
        preprocessing(network, experiment.data)
        for network in experiment.made_from.values()
    ]
    known = [(task, place) for task, place in sources if place]
    if len({place for _, place in known}) < 2:
        return
    first, *others = [(place, task.preprocessing(place)) for task, place in known]
    for place, fingerprint in others:
        if fingerprint != first[1]:
            raise other_inputs(place, first[0], experiment.data)


def preprocessing(network: Network, task: Task) -> tuple[Task, str]:
    """Where what turns records into a network's inputs lies, and the task that says so.

    The place is empty where a recipe makes it of its corpus. It follows the first of
    the networks that it is made from, as in `kd.run.workflow`.
    """
    if network.place:
        return task, model_place(network.place)
    recipe = network.recipe
    assert recipe is not None
    for first in recipe.made_from.values():
        return preprocessing(first, recipe.data)
    return recipe.data, recipe.data.preprocessing_place


def obtain(
    network: Network,
    role: str,
    folder_of: Callable[[Experiment], pathlib.Path],
    make: Callable[[Experiment], Any],
    say: Callable[[str], Any],
) -> Found:
    """Where a trained network is; its recipe is run if that has not been done.

    Args:
        network: which.
        role: what it is for, "teacher" or "start", for what is said.
        folder_of: where a recipe is run.
        make: runs a recipe there, or waits for who runs it.
        say: shows a line to the person who waits.
    """
    if network.place:
        place = model_place(network.place)
        say(f"{role}: {place}")
        return Found(place, network.place, network.change)
    recipe = network.recipe
    assert recipe is not None
    directory = folder_of(recipe)
    if hosts.of_first((directory / "summary.json").exists):
        say(f"{role}: {directory}, trained before")
    else:
        say(f"{role}: training it in {directory}")
        make(recipe)
        say(f"{role}: done")
    source = f"its recipe, key {directory.name}"
    folder = keep.BEST if network.checkpoint == "best" else keep.LAST
    return Found(str(directory / folder), source, network.change)
