"""CIFAR-10: distillation with softened predictions (hinton2015distilling).

The networks and the loss of `fashion_mnist_kd`, on colour. Paper scale is ResNet-56
teaching ResNet-20, the networks of he2016resnet with group normalization and without
augmentation, so that accuracies are below the published ones. Mini scale teaches half
of an 8-layer ResNet.

    make exp NAME=cifar10_kd DATA_DIR=~/data
"""

import dataclasses

from experiments import fashion_mnist_kd, fashion_mnist_teacher
from kd.data.images import CIFAR10, ImageTask
from kd.experiment import Experiment, Network, Scale


def experiment(scale: Scale, task: ImageTask = CIFAR10) -> Experiment:
    """As `fashion_mnist_kd`, on CIFAR-10."""
    recipe = fashion_mnist_teacher.experiment(scale, task)
    return dataclasses.replace(
        fashion_mnist_kd.experiment(scale),
        data=task,
        teachers=(Network(recipe=recipe),),
    )
