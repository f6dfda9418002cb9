"""Fashion-MNIST: the teacher, a residual network trained on the labels.

No paper that this project follows reports on Fashion-MNIST, so paper scale is its own:
the ResNet-56 of he2016resnet with group normalization, AdamW, 30 epochs, no
augmentation. Mini scale is an 8-layer ResNet that starts at half resolution. Measured
at mini scale, seed 0, on two shared CPU cores: 90.06 % of the 10,000 test images,
91 s.

Experiments that distil from it train it by themselves the first time they need it.

    make exp NAME=fashion_mnist_teacher DATA_DIR=~/data
"""

from kd.data.images import FASHION_MNIST, ImageTask
from kd.experiment import Experiment, Scale
from kd.models.resnet import ResNet
from kd.objective import CrossEntropy
from kd.train.optimizer import AdamW


def experiment(scale: Scale, task: ImageTask = FASHION_MNIST) -> Experiment:
    """Labels alone; other tasks of images may take the same recipe."""
    if scale == "paper":
        return Experiment(
            data=task,
            student=ResNet.resnet56(),
            objective=1.0 * CrossEntropy(),
            optimizer=AdamW(learning_rate=1e-3, warmup=0.05, weight_decay=0.05),
            batch_size=128,
            num_epochs=30,
        )
    return Experiment(
        data=task,
        student=ResNet.resnet8(stem_stride=2),
        objective=1.0 * CrossEntropy(),
        optimizer=AdamW(learning_rate=3e-3, warmup=0.1, weight_decay=0.05),
        batch_size=128,
        num_steps=2000,
        evaluate_every=500,
    )
