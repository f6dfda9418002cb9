"""CB as text: Sinkhorn distillation over label words, for a decoder.

cui2024sinkhorn on SuperGLUE: the answer's word, 0.1 of the KL over the vocabulary, and
the Sinkhorn distance between all students and all teachers of a batch, of predictions
over the words of the classes. That is what the paper says; the published script of
decoders has no Sinkhorn term, that of encoder-decoders another thing in its place
(`SinKDOfT0Script`), and its factor of 0.0008 for a sum over the batch is at paper scale
0.8 times the 0.001 of `convention="faithful"`.

    make exp NAME=cb_gpt_sinkd DATA_DIR=~/data
"""

import dataclasses

from experiments import cb_gpt_teacher, wikitext_teacher
from kd.data.words import CB_WORDS, WordsTask
from kd.divergences import KL, LabelWords, PerToken, SinKD
from kd.experiment import Experiment, Network, Scale
from kd.models.gpt2 import GPT2
from kd.networks.change import Layers
from kd.objective import CrossEntropy, Mix


def objective(scale: Scale) -> Mix:
    """Word, softened predictions, and transport over the label words."""
    sinkd = SinKD(convention="faithful" if scale == "paper" else "invariant")
    return (
        1.0 * PerToken(CrossEntropy())
        + 0.1 * PerToken(KL())
        + 0.8 * LabelWords(PerToken(sinkd))
    )


def experiment(scale: Scale, task: WordsTask = CB_WORDS) -> Experiment:
    """The teacher's network made smaller."""
    recipe = cb_gpt_teacher.experiment(scale, task)
    taught = dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        answers="live",
        objective=objective(scale),
    )
    if scale == "paper":
        return dataclasses.replace(
            taught,
            student=GPT2.six_layer(),
            start=Network(place="distilbert/distilgpt2"),
        )
    if scale == "small":
        chosen = tuple(range(0, 30, 3))
        start = dataclasses.replace(wikitext_teacher.SMOLLM2, change=Layers(chosen))
        return dataclasses.replace(taught, start=start)
    smaller = wikitext_teacher.mini(num_layers=1, width=64)
    return dataclasses.replace(
        taught, student=dataclasses.replace(smaller, max_length=512)
    )
