"""Fashion-MNIST: DKD++, decoupled, with norm and direction (wang2023norm).

`fashion_mnist_kdpp` with DKD (zhao2022dkd) for KL: alpha 2.5, beta 4 and 3.5 for the
norm and direction, the authors' for ResNet-56 and ResNet-20 on CIFAR-100.

Measured at mini scale on one seed, an anecdote, on two shared CPU cores: 87.26 %
(teacher 89.87 %, `fashion_mnist_kdpp` 87.67 %; one standard error is 0.33 points), 82 s
for the student.

    make exp NAME=fashion_mnist_dkdpp DATA_DIR=~/data
"""

from experiments import fashion_mnist_kdpp
from kd.divergences import DKD
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """Labels, the parts of KL at the label, and norm and direction."""
    dkd = DKD(temperature=4.0, alpha=2.5, beta=4.0)
    return fashion_mnist_kdpp.beside(dkd, scale, weight=1.0, of_directions=3.5)
