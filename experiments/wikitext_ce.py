"""WikiText-2: a small student on text alone, the baseline of the distilled ones.

The teacher takes no part in training; the student is compared with it afterwards.

    make exp NAME=wikitext_ce DATA_DIR=~/data
"""

import dataclasses

from experiments import wikitext_teacher
from kd.data.language import LanguageTask
from kd.experiment import Experiment, Network, Scale
from kd.models.gpt2 import GPT2
from kd.models.llama import Llama
from kd.train.optimizer import AdamW


def experiment(scale: Scale, task: LanguageTask | None = None) -> Experiment:
    """Text alone, with a teacher to compare to; other language tasks likewise."""
    recipe = wikitext_teacher.experiment(scale, task)
    if scale == "paper":
        return dataclasses.replace(
            recipe,
            teachers=(Network(recipe=recipe),),
            answers="live",
            student=GPT2.six_layer(),
            start=Network(place="distilbert/distilgpt2"),
        )
    if scale == "small":
        # A teacher as it is: fine-tuning it would take longer than all else.
        return dataclasses.replace(
            recipe,
            teachers=(wikitext_teacher.SMOLLM2,),
            answers="live",
            student=Llama(
                num_layers=4, width=192, num_heads=3, num_key_value_heads=1,
                mlp_width=512, max_length=2048,
            ),
            start=None,
            optimizer=AdamW(learning_rate=2e-3, warmup=0.1, weight_decay=0.1),
            num_steps=400,
        )  # fmt: skip
    return dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        answers="live",
        student=wikitext_teacher.mini(num_layers=2, width=128),
    )
