"""SST-2: the student trained on the labels alone, the baseline of every table.

The teacher takes no part in training; the student is compared with it afterwards,
so that its agreement and KL stand beside those of the distilled students.

Paper scale is the student and recipe of cui2024sinkhorn: 6 layers of width 768,
batch 32, 2 epochs, 4e-5. Small scale takes layers 1 and 3 of MiniLM, before its
fine-tuning, and asks the teacher in every step, since a run sees less of the training
set than caching would ask about. Mini scale trains one layer of width 64 from scratch.

    make exp NAME=sst2_ce
"""

import dataclasses

from experiments import sst2_teacher
from kd.data.glue import SST2
from kd.data.sentences import TextTask
from kd.experiment import Experiment, Network, Scale
from kd.models.bert import Bert
from kd.networks.change import Layers
from kd.train.optimizer import AdamW


def experiment(scale: Scale, task: TextTask = SST2, *, length: int = 64) -> Experiment:
    """Labels alone, with a teacher to compare to; other tasks of text likewise."""
    recipe = sst2_teacher.experiment(scale, task, length=length)
    if scale == "paper":
        return dataclasses.replace(
            recipe,
            teachers=(Network(recipe=recipe),),
            student=Bert.six_layer(),
            start=Network(place="google/bert_uncased_L-6_H-768_A-12"),
            optimizer=AdamW(learning_rate=4e-5),
            batch_size=32,
            num_epochs=2,
        )
    if scale == "small":
        return dataclasses.replace(
            recipe,
            teachers=(Network(recipe=recipe),),
            answers="live",
            start=dataclasses.replace(sst2_teacher.MINILM, change=Layers((1, 3))),
            num_steps=1500 if task is SST2 else 0,
        )
    return dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        student=Bert.tiny(
            num_layers=1, width=64, num_heads=1, mlp_width=256, max_length=length
        ),
    )
