"""What runs are made from, before any network is trained: shapes of the networks.

`outline` stands beside `kd.run.ingredients.gather`. Data and their inputs are real, of
networks there are the sizes, and the teachers' answers are zeros that take no memory.
"""

import pathlib
from typing import Any

import jax
import numpy as np

from kd.data.task import Corpus, Prepared
from kd.errors import UserError
from kd.experiment import Experiment, Network
from kd.models import saved
from kd.networks import load
from kd.networks.answers import Answers, check_size, vector_of
from kd.networks.kept import Keep, Streamed
from kd.networks.kept.ask import Kept, name_in_batch, reader
from kd.networks.kept.measured import shared_of
from kd.networks.load import Found, Loaded, Start, longest
from kd.networks.place import model_place
from kd.run import beginning
from kd.run.ingredients import Asking, Ingredients, asking, inputs, taking_part
from kd.run.obtain import preprocessing
from kd.run.workspace import Workspace, read
from kd.types import Architecture, Outputs


def outline(
    experiment: Experiment,
    corpus: Corpus,
    folder: pathlib.Path,
    workspace: Workspace,
) -> Ingredients:
    """What runs of an experiment would be made from.

    Args:
        experiment: of the runs.
        corpus: its records.
        folder: an empty one, for what turns records into inputs.
        workspace: where; nothing is written there.

    Returns:
        As `gather`. Parameters are shapes, those of the start are left out: the
        student's first ones have the same shapes.

    Raises:
        UserError: a network is not there, or does not fit the data.
    """
    adopt = ""
    for first in experiment.made_from.values():
        task, adopt = preprocessing(first, experiment.data)
        if not adopt:
            task.put_preprocessing(read(task, workspace), folder / "adopted")
            adopt = str(folder / "adopted")
        break
    data = inputs(experiment, corpus, [folder / "model"], adopt, workspace)
    drawn = experiment.data.sample(data.train.labels, experiment.data.target)
    sample = taking_part(drawn, experiment, workspace.say)
    answers = None
    if experiment.teachers:
        asked = asking(experiment, sample, workspace.say)
        teachers = [_teacher(n, experiment, data) for n in experiment.teachers]
        keep = experiment.keep.for_losses(experiment.losses)
        answers = _answers(teachers, asked, keep, data)
    start = _start(experiment.start, data)
    return Ingredients(data, drawn, sample, start, answers, 0.0)


def _sizes(
    network: Network, data: Prepared
) -> tuple[Architecture, tuple[str, ...], str]:
    """A network's sizes after its change, its labels, and where it is from."""
    if network.place:
        place = model_place(network.place)
        found = Found(place, network.place, network.change)
        return load.sizes(found), saved.read_config(place).labels, network.place
    recipe = network.recipe
    assert recipe is not None
    start = _start(recipe.start, data)
    learners = beginning.networks(recipe, data, start, lambda line: None)
    yields: Any = learners[recipe.procedure.exported]
    if network.change is not None:
        try:
            yields, _ = network.change(yields, None)
        except ValueError as error:
            raise UserError(f"a recipe's network: {error}") from error
    return yields, recipe.data.labels, "its recipe"


def _start(network: Network | None, data: Prepared) -> Start | None:
    if network is None:
        return None
    sizes, _, source = _sizes(network, data)
    return Start(sizes, {}, (), source)


def _teacher(network: Network, experiment: Experiment, data: Prepared) -> Loaded:
    sizes, labels, source = _sizes(network, data)
    task, dtype = experiment.data, experiment.compute_dtype
    differs = load.other_outputs(labels, task)
    if differs and any(loss.reads_logits for loss in experiment.losses):
        raise UserError(f"{source}: {differs}")
    num_others = len(labels) if differs else None
    model = load.of_outputs(sizes, num_others, task, data, dtype)
    params = jax.eval_shape(model.init, jax.random.key(0), longest(data.train))
    return Loaded(model, params, source, f"{sizes} {dtype}", differs)


def _answers(
    teachers: list[Loaded], asked: Asking, keep: Keep, data: Prepared
) -> Answers:
    streamed = keep if isinstance(keep, Streamed) else None
    if asked.about is not None and streamed is None:
        check_size(teachers, data, len(asked.about))
    batch = longest(data.train)
    train, kept, vectors = [], [], {}
    for i, teacher in enumerate(teachers):
        said = jax.eval_shape(teacher.model.apply, teacher.params, batch, None)
        if streamed is None:
            train.append(_nothing(len(data.train), said.logits))
        elif asked.about is not None:
            kept.append(_kept(i, teacher, streamed, said, data))
        for one in dict.fromkeys(e._replace(of="example") for e in asked.embeddings):
            vector = jax.eval_shape(vector_of(one), said, batch)
            vectors[one] = _nothing(len(data.train), vector)
    cached = None if asked.about is None or streamed is not None else tuple(train)
    num_asked = len(data.train) if vectors else 0
    if asked.about is not None:
        num_asked = len(asked.about)
    return Answers(
        tuple(teachers), None, None, cached, asked.in_step, num_asked, vectors,
        tuple(kept),
    )  # fmt: skip


def _kept(
    i: int, teacher: Loaded, keep: Streamed, said: Outputs, data: Prepared
) -> Kept:
    if problem := keep.problem(said):
        raise UserError(problem)
    arrays = {
        name: _nothing(len(data.train), one)
        for name, one in jax.eval_shape(keep.arrays, said).items()
    }
    shared = shared_of(teacher, keep, data)
    return Kept(
        reader(i, teacher, keep, [*arrays], shared),
        {name_in_batch(i, name): one for name, one in arrays.items()},
        {},
        pathlib.Path(),
    )


def _nothing(num: int, one: jax.ShapeDtypeStruct) -> np.ndarray:
    """Zeros of so many examples, one number in memory."""
    return np.broadcast_to(np.zeros((), one.dtype), (num, *one.shape[1:]))
