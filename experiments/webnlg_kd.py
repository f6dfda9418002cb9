"""WebNLG: data to text by a small decoder, distilled token by token.

The KL of wen2023fdistill, averaged over the tokens of the texts, beside these texts.
Scored by BLEU with all references of a set of triples, chrF, ROUGE-L and TER.

    make exp NAME=webnlg_kd DATA_DIR=~/data
"""

import dataclasses

from experiments import webnlg_teacher, wikitext_teacher
from kd.data.webnlg import WEBNLG
from kd.data.writing import WritingTask
from kd.divergences import KL, PerToken
from kd.experiment import Experiment, Network, Scale
from kd.models.gpt2 import GPT2
from kd.networks.change import Layers
from kd.objective import CrossEntropy
from kd.train.optimizer import AdamW


def experiment(scale: Scale, task: WritingTask = WEBNLG) -> Experiment:
    """Texts, and the teacher's predictions in them."""
    recipe = webnlg_teacher.experiment(scale, task)
    taught = dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        answers="live",
        objective=0.5 * PerToken(CrossEntropy()) + 0.5 * PerToken(KL()),
    )
    if scale == "paper":
        return dataclasses.replace(
            taught,
            student=GPT2.six_layer(),
            start=Network(place="distilbert/distilgpt2"),
        )
    if scale == "small":
        # Every third layer of what the teacher began as.
        chosen = tuple(range(0, 30, 3))
        start = dataclasses.replace(wikitext_teacher.SMOLLM2, change=Layers(chosen))
        return dataclasses.replace(
            taught, start=start, optimizer=AdamW(learning_rate=3e-4, warmup=0.1)
        )
    return dataclasses.replace(
        taught, student=wikitext_teacher.mini(num_layers=2, width=128)
    )
