"""Grids of nine digits, two views, no labels: Wasserstein predictive coding.

`multi_mnist_cpc` with the Wasserstein form of its objective and a penalty that keeps
the critic 1-Lipschitz in the two images (ozair2019wasserstein): it cannot be sure of a
pair by few digits alone, as every digit adds distance that it may use.

Not measured yet; a step takes about five times that of `multi_mnist_cpc`.

    make exp NAME=multi_mnist_wpc DATA_DIR=~/data
"""

import dataclasses

from experiments import multi_mnist_cpc
from kd.experiment import Experiment, Scale
from kd.features.predictive_coding import WassersteinPredictiveCoding
from kd.procedures.contrastive import Contrastive


def experiment(scale: Scale) -> Experiment:
    """As `multi_mnist_cpc`, with a Lipschitz critic."""
    return dataclasses.replace(
        multi_mnist_cpc.experiment(scale),
        objective=1.0 * WassersteinPredictiveCoding(),
        procedure=Contrastive(lipschitz="penalty"),
    )
