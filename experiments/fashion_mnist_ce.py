"""Fashion-MNIST: the student trained on the labels alone, the baseline.

The teacher takes no part in training; the student is compared with it afterwards.

Paper scale: the ResNet-20 of he2016resnet; ResNet-56 teaching ResNet-20 is a usual pair
on CIFAR. Mini scale: half the channels of the teacher. Measured at mini scale, seed 0,
on two shared CPU cores: 87.57 % (teacher 90.06 %), 44 s for the student.

    make exp NAME=fashion_mnist_ce DATA_DIR=~/data
"""

import dataclasses

from experiments import fashion_mnist_teacher
from kd.experiment import Experiment, Network, Scale
from kd.models.resnet import ResNet


def experiment(scale: Scale) -> Experiment:
    """Labels alone, with a teacher to compare to."""
    recipe = fashion_mnist_teacher.experiment(scale)
    student = (
        ResNet.resnet20()
        if scale == "paper"
        else ResNet.resnet8(widths=(8, 16, 32), num_groups=2, stem_stride=2)
    )
    return dataclasses.replace(
        recipe, teachers=(Network(recipe=recipe),), student=student
    )
