"""Networks of the hub, read from a folder (WEIGHTS) where there is no network."""

import dataclasses
import pathlib

from kd.errors import UserError
from kd.experiment import Experiment, Network
from kd.models import gguf_file
from kd.networks.place import is_directory


def from_folder(experiment: Experiment, folder: str) -> Experiment:
    """The same, its networks of the hub being those in a folder.

    Args:
        experiment: whose teachers and start, and theirs, may have hub names.
        folder: one network, standing for the only hub name there is; or a folder
            for each, called as on the hub, with the organisation or without.

    Raises:
        UserError: the folder has not what is asked for.
    """
    directory = pathlib.Path(folder).expanduser()
    if not directory.is_dir():
        raise UserError(f"WEIGHTS {folder} is not a folder")
    names = sorted(set(_hub_names(experiment)))
    if not names:
        raise UserError("WEIGHTS is given, and the experiment reads nothing of the hub")
    if _is_network(directory):
        if len(names) > 1:
            raise UserError(
                f"WEIGHTS {folder} is one network, and the experiment reads "
                f"{', '.join(names)}; give a folder with one for each"
            )
        return _replaced(experiment, {names[0]: str(directory)})
    found = {}
    for name in names:
        tried = [directory / name, directory / name.rpartition("/")[2]]
        there = [path for path in tried if _is_network(path)]
        if not there:
            raise UserError(
                f"WEIGHTS {folder} has no {name}: no config.json, or .gguf, in "
                f"{tried[-1]}"
            )
        found[name] = str(there[0])
    return _replaced(experiment, found)


def _is_network(path: pathlib.Path) -> bool:
    """Whether a folder has a network's config, alone or in a GGUF file."""
    return (path / "config.json").is_file() or gguf_file.find(path) is not None


def _hub_names(experiment: Experiment):
    for network in experiment.made_from.values():
        if network.place and not is_directory(network.place):
            yield network.place
        elif network.recipe is not None and not network.place:
            yield from _hub_names(network.recipe)


def _replaced(experiment: Experiment, found: dict[str, str]) -> Experiment:
    def one(network: Network) -> Network:
        if network.place:
            place = found.get(network.place, network.place)
            return dataclasses.replace(network, place=place)
        assert network.recipe is not None
        return dataclasses.replace(network, recipe=_replaced(network.recipe, found))

    return dataclasses.replace(
        experiment,
        teachers=tuple(map(one, experiment.teachers)),
        start=experiment.start and one(experiment.start),
    )
