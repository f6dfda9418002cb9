"""Fashion-MNIST: distillation with softened predictions (hinton2015distilling).

Labels and KL at temperature 4 with weights 1 and 1, those that wang2023norm gives for
ResNet-56 and ResNet-20 on CIFAR-100.

    make exp NAME=fashion_mnist_kd DATA_DIR=~/data
"""

import dataclasses

from experiments import fashion_mnist_ce
from kd.divergences import KL
from kd.experiment import Experiment, Scale
from kd.objective import CrossEntropy


def experiment(scale: Scale) -> Experiment:
    """Labels and the teacher's softened predictions."""
    return dataclasses.replace(
        fashion_mnist_ce.experiment(scale),
        objective=1.0 * CrossEntropy() + 1.0 * KL(temperature=4.0),
    )
