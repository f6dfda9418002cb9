"""Fashion-MNIST: a teacher asked about mixtures of images, too (mixup).

The objective of wang2022augmentation's code, 0.1 cross-entropy and 0.9 KL at
temperature 4, and the KL once more on a mixture of every image with another one; labels
of mixtures take no part. This is KD + TLmixup of wang2021understanding, without the
flips and crops that come first there, so that `fashion_mnist_kd` differs in weights and
view only.

Measured at mini scale on one seed, an anecdote (one standard error is 0.33 points), on
one CPU core: 86.97 % (teacher 90.21 %), 90 s for the student, and 309,692 questions to
the teacher, where `fashion_mnist_kd` asks 53,962.

    make exp NAME=fashion_mnist_mixup DATA_DIR=~/data
"""

import dataclasses

from experiments import fashion_mnist_kd
from kd.divergences import KL
from kd.experiment import Experiment, Scale
from kd.objective import CrossEntropy
from kd.views import Beside, Mixup


def experiment(scale: Scale) -> Experiment:
    """Labels and teacher on the images, the teacher alone on their mixtures."""
    return dataclasses.replace(
        fashion_mnist_kd.experiment(scale),
        objective=0.1 * CrossEntropy() + 0.9 * KL(temperature=4.0),
        view=Beside(Mixup()),
    )
