"""Fashion-MNIST: Sinkhorn distillation, all students of a batch against all teachers.

`fashion_mnist_kd` and the Sinkhorn distance, weighted as cui2024sinkhorn weighs it on
text. Ten classes make the transport plan more telling than two.

    make exp NAME=fashion_mnist_sinkd DATA_DIR=~/data
"""

import dataclasses

from experiments import fashion_mnist_kd
from kd.divergences import SinKD
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """As `fashion_mnist_kd`, and the batch-wise Sinkhorn distance."""
    base = fashion_mnist_kd.experiment(scale)
    sinkd = SinKD(temperature=2.0, epsilon=0.1, num_iters=20)
    return dataclasses.replace(base, objective=base.objective + 0.8 * sinkd)
