"""Fashion-MNIST: DKD++, decoupled distillation with norm and direction (wang2023norm).

`fashion_mnist_kdpp` with DKD (zhao2022dkd) for KL: alpha 2.5, beta 4 and 3.5 for the
norm and direction, the authors' for ResNet-56 and ResNet-20 on CIFAR-100.

    make exp NAME=fashion_mnist_dkdpp DATA_DIR=~/data
"""

from experiments import fashion_mnist_kdpp
from kd.divergences import DKD
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """Labels, the parts of KL at the label, and norm and direction."""
    dkd = DKD(temperature=4.0, alpha=2.5, beta=4.0)
    return fashion_mnist_kdpp.beside(dkd, scale, weight=1.0, of_directions=3.5)
