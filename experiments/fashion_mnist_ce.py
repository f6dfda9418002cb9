"""Fashion-MNIST: the student trained on the labels alone, the baseline.

The teacher takes no part in training; the student is compared with it afterwards.

Paper scale: the ResNet-20 of he2016resnet, half as deep again as what KD papers call a
small student for CIFAR. Mini scale: two stages of 8 and 16 channels.

    make exp NAME=fashion_mnist_ce DATA_DIR=~/data
"""

import dataclasses

from experiments import fashion_mnist_teacher
from kd.experiment import Experiment, Scale, Teacher
from kd.models.resnet import ResNet


def experiment(scale: Scale) -> Experiment:
    """Labels alone, with a teacher to compare to."""
    recipe = fashion_mnist_teacher.experiment(scale)
    student = (
        ResNet.resnet20()
        if scale == "paper"
        else ResNet.resnet8(widths=(8, 16), num_groups=2, stem_stride=2)
    )
    return dataclasses.replace(recipe, teacher=Teacher(recipe=recipe), student=student)
