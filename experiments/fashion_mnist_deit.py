"""Fashion-MNIST: a vision transformer learns from a ResNet by a token (DeiT).

The hard distillation of touvron2021deit: labels for the class token, the teacher's
first choices for the distillation token, in equal parts; the mean of both answers. The
paper's teacher is a convolutional network, too, which a transformer of its size learns
more from than from another transformer.

Paper scale is DeiT-Ti's depth and width on squares of 4 x 4, trained by the recipe of
`fashion_mnist_teacher`, without the paper's augmentation. Mini scale has 4 layers of
width 64. `ARGS=student.distillation_token=false` needs the objective of one head, as
`fashion_mnist_kd` has it. Not measured yet.

    make exp NAME=fashion_mnist_deit DATA_DIR=~/data
"""

import dataclasses

from experiments import fashion_mnist_ce
from kd.divergences import HardCrossEntropy
from kd.experiment import Experiment, Scale
from kd.models.vit import ViT
from kd.objective import CrossEntropy, OfHead


def experiment(scale: Scale) -> Experiment:
    """Labels for one head, the teacher's first choices for the other."""
    base = fashion_mnist_ce.experiment(scale)
    sizes = ViT.tiny(patch_size=4) if scale == "paper" else ViT.mini()
    return dataclasses.replace(
        base,
        student=dataclasses.replace(sizes, distillation_token=True),
        objective=0.5 * OfHead(CrossEntropy(), 0) + 0.5 * OfHead(HardCrossEntropy(), 1),
        optimizer=dataclasses.replace(base.optimizer, learning_rate=1e-3),
    )
