"""SST-2 at mini scale: a pair that ties, so the table must say that it tells nothing.

Two layers of width 128 teach one of width 64, both from scratch; the student on labels
alone is about as good as its teacher. A negative control of `kd.compare`.

    make table NAME=sst2_tied DATA_DIR=~/data
"""

from experiments import sst2_ce, sst2_sinkd
from kd.compare.table import Table
from kd.experiment import Scale


def table(scale: Scale) -> Table:
    """Labels alone and SinKD, five seeds."""
    del scale
    return Table(
        rows={
            "labels": sst2_ce.experiment("mini"),
            "KL + SinKD": sst2_sinkd.experiment("mini"),
        },
        baseline="labels",
        also=("nll", "agreement"),
    )
