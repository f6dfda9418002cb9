"""Predictive coding of digits: the rows of `representations_2`, `_4` and `_9`."""

import dataclasses

from experiments import multi_mnist_cpc, multi_mnist_wpc
from kd.compare.table import Claim, Table
from kd.evaluate.digits import Digits
from kd.experiment import Experiment, Scale
from kd.procedures.contrastive import Contrastive


def table_of(scale: Scale, num_digits: int) -> Table:
    """The KL form, and the Wasserstein form with a penalty and with an exact bound.

    Args:
        scale: of the experiments.
        num_digits: of the grids, whose views share num_digits ln 10 nats.
    """
    wpc = multi_mnist_wpc.experiment(scale)
    rows = {
        "CPC": multi_mnist_cpc.experiment(scale),
        "WPC": wpc,
        "WPC, exact": dataclasses.replace(
            wpc, procedure=Contrastive(lipschitz="exact")
        ),
    }

    def on_grids(row: Experiment) -> Experiment:
        data = dataclasses.replace(row.data, target=Digits(num_digits=num_digits))
        return dataclasses.replace(row, data=data)

    return Table(
        rows={name: on_grids(row) for name, row in rows.items()},
        baseline="CPC",
        seeds=tuple(range(5)),
        # Every other metric would train all probes again.
        metric="digits_recovered",
        claims=(Claim("WPC", "CPC", "ozair2019wasserstein"),),
    )
