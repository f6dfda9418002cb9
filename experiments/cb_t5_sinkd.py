"""CB as text to text: Sinkhorn distillation over label words, encoder-decoders.

cui2024sinkhorn on SuperGLUE, with the loss of `cb_gpt_sinkd`: what the published script
computes in the place of the Sinkhorn distance is `SinKDOfT0Script`, and what it says in
lines that are commented out is what is done here. Its student is not named there;
paper scale takes a T5-small that was trained further as a language model, as T0 was.

    make exp NAME=cb_t5_sinkd DATA_DIR=~/data
"""

import dataclasses

from experiments import cb_gpt_sinkd, cb_t5_teacher, multi30k_teacher
from kd.data.words import CB_WORDS, WordsTask
from kd.experiment import Experiment, Network, Scale


def experiment(scale: Scale, task: WordsTask = CB_WORDS) -> Experiment:
    """The teacher's network made smaller."""
    recipe = cb_t5_teacher.experiment(scale, task)
    taught = dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        answers="live",
        objective=cb_gpt_sinkd.objective(scale),
    )
    if scale == "paper":
        start = Network(place="google/t5-small-lm-adapt")
        return dataclasses.replace(taught, start=start)
    return dataclasses.replace(
        taught, student=multi30k_teacher.mini(num_layers=1, width=64)
    )
