"""CIFAR-10 (JPEG copy): the rows of `procedures_images` on colour, 5 seeds.

Accuracies are not comparable with those on CIFAR-10, see `cifar10_jpeg_kd`. Without the
embedding of digits, which are grey.

    make table NAME=procedures_cifar10_jpeg DATA_DIR=~/data
"""

import dataclasses

from experiments.tables import procedures_images
from kd.compare.table import Table
from kd.data.images import CIFAR10_JPEG
from kd.experiment import Experiment, Network, Scale


def table(scale: Scale) -> Table:
    """As `procedures_images`, on the copy."""
    rows = procedures_images.rows(scale)
    return procedures_images.table_of({name: _on(row) for name, row in rows.items()})


def _on(experiment: Experiment) -> Experiment:
    """The same, and all that it is made from, on these images."""

    def moved(network: Network) -> Network:
        assert network.recipe is not None
        return dataclasses.replace(network, recipe=_on(network.recipe))

    return dataclasses.replace(
        experiment,
        data=CIFAR10_JPEG.with_sample_of(experiment.data),
        teachers=tuple(map(moved, experiment.teachers)),
        start=experiment.start and moved(experiment.start),
    )
