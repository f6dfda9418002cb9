"""Fashion-MNIST: correlations with a teacher and its pruned copy (R2KD).

Cross-entropy on the images, correlation distances of values and of ranks, weight 2
each, on the images and on CutMix mixtures; the answer is 0.7 of the teacher's logits
and 0.3 of those of a copy that lacks the smallest tenth of every layer's weights: the
defaults of kim2024r2kd's code. There the ranks have no gradient; here they are soft
ones. `ARGS="optimizer.pruning.share=0.5"` prunes the student as it learns.

Measured at mini scale on one seed, an anecdote (one standard error is 0.33 points), on
one CPU core: 87.50 % (both teachers together 90.21 %), 105 s for the student.

    make exp NAME=fashion_mnist_r2kd DATA_DIR=~/data
"""

import dataclasses

from experiments import fashion_mnist_kd
from kd.divergences import RankCorrelation, ValueCorrelation
from kd.experiment import Experiment, Scale
from kd.networks.change import Pruned
from kd.objective import CrossEntropy
from kd.views import Beside, CutMix


def experiment(scale: Scale) -> Experiment:
    """Labels on the images, both teachers as one on these and their mixtures."""
    base = fashion_mnist_kd.experiment(scale)
    (teacher,) = base.teachers
    return dataclasses.replace(
        base,
        teachers=(teacher, dataclasses.replace(teacher, change=Pruned(0.1))),
        teacher_weights=(0.7, 0.3),
        objective=(
            1.0 * CrossEntropy()
            + 2.0 * ValueCorrelation(temperature=4.0)
            + 2.0 * RankCorrelation()
        ),
        view=Beside(CutMix()),
    )
