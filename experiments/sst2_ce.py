"""SST-2: the student trained on the labels alone, the baseline of every table.

The teacher takes no part in training; the student is compared with it afterwards,
so that its agreement and KL stand beside those of the distilled students.

Paper scale is the student and recipe of cui2024sinkhorn: 6 layers of width 768,
batch 32, 2 epochs, 4e-5. Mini scale trains one layer of width 64 from scratch.

    make exp NAME=sst2_ce
"""

import dataclasses

from experiments import sst2_teacher
from kd.experiment import Experiment, Scale, Teacher
from kd.models.bert import Bert
from kd.train.optimizer import AdamW


def experiment(scale: Scale) -> Experiment:
    """Labels alone, with a teacher to compare to."""
    recipe = sst2_teacher.experiment(scale)
    if scale == "paper":
        return dataclasses.replace(
            recipe,
            teacher=Teacher(recipe=recipe),
            student=Bert.six_layer(pretrained="google/bert_uncased_L-6_H-768_A-12"),
            optimizer=AdamW(learning_rate=4e-5),
            batch_size=32,
            num_epochs=2,
        )
    return dataclasses.replace(
        recipe,
        teacher=Teacher(recipe=recipe),
        student=Bert.tiny(
            num_layers=1, width=64, num_heads=1, mlp_width=256, max_length=64
        ),
    )
