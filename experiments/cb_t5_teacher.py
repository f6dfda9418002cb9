"""CB as text to text: the teacher, an encoder-decoder whose answer is a word.

Paper scale fine-tunes T0-3B, of cui2024sinkhorn. Below, a small T5 is trained from
scratch on 250 texts, which shows that all runs, and little else.

    make exp NAME=cb_t5_teacher DATA_DIR=~/data
"""

import dataclasses

from experiments import cb_gpt_teacher, multi30k_teacher
from kd.data.words import CB_WORDS, WordsTask
from kd.experiment import Experiment, Network, Scale


def experiment(scale: Scale, task: WordsTask = CB_WORDS) -> Experiment:
    """The words of the classes alone; other tasks of words take the same recipe."""
    if scale == "paper":
        recipe = cb_gpt_teacher.experiment("paper", task)
        data = dataclasses.replace(task, target_format="{}", widths=(256, 1024))
        return dataclasses.replace(
            recipe, data=data, start=Network(place="bigscience/T0_3B")
        )
    return dataclasses.replace(
        cb_gpt_teacher.experiment("mini", task),
        student=multi30k_teacher.mini(num_layers=2, width=128),
    )
