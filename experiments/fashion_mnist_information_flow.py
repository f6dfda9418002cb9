"""Fashion-MNIST: a convolutional teacher, a fully connected student, one between.

passalis2020heterogeneous: layers of a student can follow those of a teacher only where
both are alike. So an auxiliary network of the student's family, a multi-layer
perceptron that has learnt the labels, first learns the neighbourhoods of what the
residual teacher pools; then the student learns those of all its layers, the lower ones
early above all: their weight is 100 and falls by 0.7 in every fiftieth of the run, as
it does in the authors' 50 epochs. Both also learn from the labels, as theirs do not,
since nothing else would train the head that tells the classes. All embeddings come from
the cache.

Measured at mini scale on one seed, an anecdote (one standard error is 0.33 points), on
one CPU core: 87.78 % (auxiliary network 89.09 %), 15 s for the student, 22 s for the
auxiliary network and what it starts from.

    make exp NAME=fashion_mnist_information_flow DATA_DIR=~/data

The paper scores retrieval; so does `python -m kd.retrieval
fashion_mnist_information_flow --data-dir ~/data`, of the student and of all that it was
made from.
"""

import dataclasses

from experiments import fashion_mnist_ce
from kd.experiment import Experiment, Network, Scale
from kd.features import PKT, information_flow
from kd.models.mlp import MLP
from kd.objective import CrossEntropy

_EPOCH = 469
"""Batches of 128 in the 60,000 images."""


def experiment(scale: Scale) -> Experiment:
    """Labels and the flow of information through the auxiliary network."""
    base = fashion_mnist_ce.experiment(scale)
    num_steps = base.num_steps or base.num_epochs * _EPOCH
    supervised = dataclasses.replace(base, student=MLP(widths=(256, 128, 64)))
    auxiliary = dataclasses.replace(
        supervised,
        start=Network(recipe=supervised),
        objective=1.0 * CrossEntropy() + PKT(kernel="both", divergence="jeffreys"),
    )
    return dataclasses.replace(
        base,
        student=MLP(widths=(32, 32, 32)),
        teachers=(Network(recipe=auxiliary),),
        objective=1.0 * CrossEntropy()
        + information_flow((0, 1), (0, 1), steps_per_epoch=num_steps // 50),
    )
