"""A finished run opened again: its network, and the data that it was trained on."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from kd import catalog, config
from kd.data import sources
from kd.data.sample import Sample
from kd.data.task import Prepared, Task
from kd.errors import UserError
from kd.models import saved
from kd.networks.load import longest
from kd.report.files import Run, read_run
from kd.types import Architecture, Params


class Reopened(NamedTuple):
    """All that the run learned, and from what."""

    run: Run
    task: Task
    data: Prepared
    sample: Sample
    """What of the training split was learnt from."""
    network: Architecture
    params: Params


def reopen(
    directory: str | pathlib.Path,
    *,
    source: str | None = None,
    place: str | None = None,
) -> Reopened:
    """Reads a run's network, and its data from where they were.

    Args:
        directory: of the finished run.
        source: of the data, where that is no longer the run's.
        place: folder of the data sets, likewise.

    Raises:
        UserError: it is no finished run, its data are no longer there or have
            changed, or no experiment has such data.
    """
    run = read_run(directory)
    try:
        recorded = run.config["experiment"]["data"]
        fingerprint = run.config["data"]["fingerprint"]
        name, scale = (run.config["run"][key] for key in ("name", "scale"))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{run.directory}/config.json says nothing of {error}; expected the folder "
            "of a finished run"
        ) from error
    task = _task(run.directory, recorded, name, scale or "mini")
    changes = {"source": source, "directory": place}
    given = [f"{key}={value}" for key, value in changes.items() if value is not None]
    task = config.override(task, *given)
    place_of_model = run.directory / "model"
    network = saved.read_config(place_of_model).network
    task.preprocessing(place_of_model)  # Raises now rather than makes another.
    corpus = sources.load(task)
    if corpus.fingerprint != fingerprint:
        raise UserError(
            f"{run.directory} was trained on other data than {corpus.origin}; give "
            "their folder as DATA_DIR="
        )
    data = task.prepare(corpus, place_of_model)
    model = task.build(network, vocab_size=data.vocab_size)
    shapes = jax.eval_shape(model.init, jax.random.key(0), longest(data.train))
    params = saved.load(place_of_model, network, shapes).params
    sample = task.sample(data.train.labels, task.target)
    return Reopened(run, task, data, sample, network, params)


def _task(
    directory: pathlib.Path, recorded: Mapping[str, Any], name: str, scale: str
) -> Task:
    """The task that a run's config.json describes.

    An experiment of the same task has the objects that JSON has only the names of; the
    run's own is asked first.
    """
    known = catalog.names()
    for candidate in [n for n in known if n == name] + [n for n in known if n != name]:
        try:
            task = catalog.load(candidate, scale).data  # pyrefly: ignore
        except UserError:
            continue
        if (type(task).__name__, task.name) != (
            recorded.get("class"),
            recorded.get("name"),
        ):
            continue
        try:
            found = config.override(task, *_assignments(recorded, config.to_json(task)))
        except UserError:
            continue
        if config.to_json(found) == dict(recorded):
            return found
    raise UserError(
        f"{directory}: no experiment in experiments/ has its data any more, "
        f"{recorded.get('name')} as a {recorded.get('class')}"
    )


def _assignments(
    wanted: Mapping[str, Any], ours: Mapping[str, Any], path: str = ""
) -> Iterator[str]:
    """What to change of a record, as `override` takes it."""
    for name, value in wanted.items():
        if name == "class" or value == ours.get(name):
            continue
        if isinstance(value, Mapping) and isinstance(ours.get(name), Mapping):
            yield from _assignments(value, ours[name], f"{path}{name}.")
        elif isinstance(value, list):
            yield f"{path}{name}={','.join(map(str, value))}"
        else:
            yield f"{path}{name}={'none' if value is None else value}"
