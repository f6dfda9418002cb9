"""What student and teacher write, to be read on the page: samples.json."""

import pathlib
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from kd import run_directory
from kd.data.prompts import Prompts
from kd.data.task import Prepared, Task
from kd.networks.answers import Answers
from kd.networks.predict import as_one
from kd.networks.write import write
from kd.run.fit import Learnt

FILE = "samples.json"
NUM = 12


def write_samples(
    directory: pathlib.Path,
    task: Task,
    data: Prepared,
    student: Learnt,
    answers: Answers | None,
    combine: Callable[[list[Any]], Any],
    mesh: Mesh,
) -> None:
    """Writes prompts, what follows in the data, and what the networks write.

    Nothing where the task has no prompts.

    Args:
        directory: of the run, with the network in its folder `model`.
        task: what was learnt.
        data: of the run.
        student: who writes.
        answers: the teachers, who write as one.
        combine: the outputs of several as those of one.
        mesh: of the devices.
    """
    prompts: Prompts | None = task.prompts(data.final, directory / "model", NUM)
    if prompts is None:
        return
    texts = {"student": write(student.model, student.params, prompts, mesh)}
    if answers is not None and answers.final is not None:
        teacher = as_one([t.model for t in answers.teachers], combine)
        params = tuple(t.params for t in answers.teachers)
        texts["teacher"] = write(teacher, params, prompts, mesh)
    samples = [
        {"prompt": prompt, "reference": reference}
        | {name: written[i] for name, written in texts.items()}
        for i, (prompt, reference) in enumerate(
            zip(prompts.shown, prompts.references, strict=True)
        )
    ]
    run_directory.write_json(directory / FILE, {"samples": samples})
