"""CIFAR-10 (JPEG copy): the experiment `cifar10_kd` on a lossy copy of its images.

Accuracies are not comparable with those on CIFAR-10: the images have gone through JPEG,
at a median of 30.5 dB. Measured at mini scale, seed 0, on one CPU core: 55.36 %
(teacher 62.22 %), 51 s for the student. One standard error is 0.5 points.

    make exp NAME=cifar10_jpeg_kd DATA_DIR=~/data
"""

from experiments import cifar10_kd
from kd.data.images import CIFAR10_JPEG
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """As `cifar10_kd`, on the copy."""
    return cifar10_kd.experiment(scale, CIFAR10_JPEG)
