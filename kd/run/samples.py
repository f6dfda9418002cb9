"""What student and teacher write, to be read on the page: samples.json."""

import pathlib

from jax.sharding import Mesh

from kd import run_directory
from kd.data.prompts import Prompts
from kd.data.task import Prepared, Task
from kd.networks.answers import Answers
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
    mesh: Mesh,
) -> None:
    """Writes prompts, what follows in the data, and what the networks write.

    Nothing where the task has no prompts.

    Args:
        directory: of the run, with the network in its folder `model`.
        task: what was learnt.
        data: of the run.
        student: who writes.
        answers: the teachers; several write nothing, since they are one in their
            probabilities alone.
        mesh: of the devices.
    """
    prompts: Prompts | None = task.prompts(data.final, directory / "model", NUM)
    if prompts is None:
        return
    texts = {"student": write(student.model, student.params, prompts, mesh)}
    if answers is not None and answers.final is not None and len(answers.teachers) == 1:
        (teacher,) = answers.teachers
        texts["teacher"] = write(teacher.model, teacher.params, prompts, mesh)
    samples = [
        {"prompt": prompt, "reference": reference}
        | {name: written[i] for name, written in texts.items()}
        for i, (prompt, reference) in enumerate(
            zip(prompts.shown, prompts.references, strict=True)
        )
    ]
    run_directory.write_json(directory / FILE, {"samples": samples})
