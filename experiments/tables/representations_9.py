"""Grids of nine digits: Wasserstein predictive coding against the KL form, 5 seeds.

The views share 20.7 nats, and the KL form can tell 4.2 of them (`multi_mnist_cpc`). The
metric is how many of the nine digits linear probes recover of the representation.

    make table NAME=representations_9 DATA_DIR=~/data
"""

from experiments.tables._representations import table_of
from kd.compare.table import Table
from kd.experiment import Scale


def table(scale: Scale) -> Table:
    """The KL form, and the Wasserstein form with a penalty and with an exact bound."""
    return table_of(scale, 9)
