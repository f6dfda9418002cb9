"""Fashion-MNIST: a curriculum of experts, one for each image (amara2022ceskd).

Two assistants and the teacher: the weakest teaches every image at first, and halfway
through the run the easiest third only; the teacher ends up with the hardest third. How
hard an image is, is the weakest expert's cross-entropy on it. The experts are a chain,
each trained by the next stronger one, as in `fashion_mnist_takd`. Their answers are
cached, so three experts cost a step what one does. Score and pacing are this project's
reading of the paper's abstract, see `Curriculum`.

Measured at mini scale on one seed, an anecdote (one standard error is 0.33 points), on
one CPU core: 87.14 % (all three experts together 89.98 %, the strongest 90.21 %), 33 s
for the student.

    make exp NAME=fashion_mnist_ceskd DATA_DIR=~/data
"""

import dataclasses

from experiments import fashion_mnist_kd, fashion_mnist_takd
from kd.experiment import Experiment, Network, Scale
from kd.models.resnet import ResNet
from kd.procedures.curriculum import Curriculum


def experiment(scale: Scale) -> Experiment:
    """As `fashion_mnist_kd`, with three experts in turn for the teacher."""
    base = fashion_mnist_kd.experiment(scale)
    stronger = Network(recipe=fashion_mnist_takd.assistant(scale))
    weaker = dataclasses.replace(
        base,
        student=ResNet(num_blocks=4)
        if scale == "paper"
        else ResNet.resnet8(widths=(10, 20, 40), num_groups=2, stem_stride=2),
        teachers=(stronger,),
    )
    return dataclasses.replace(
        base,
        teachers=(Network(recipe=weaker), stronger, *base.teachers),
        procedure=Curriculum(pacing=0.5),
    )
