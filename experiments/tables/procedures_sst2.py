"""SST-2: who teaches, when, on what; plain KD as the baseline, 5 seeds.

A student of one layer, from scratch, learns from MiniLM, fine-tuned, in 4,000 steps.
Same teacher, same steps in every row, with the settings of the experiments; nothing is
tuned. Rows that ask more often than plain KD stand there once more with as many
questions, as in `procedures_images`, where it is also said what is not counted.

    make table NAME=procedures_sst2 DATA_DIR=~/data WEIGHTS=~/weights/minilm
"""

from experiments.tables._text import table_of
from kd.compare.table import Table
from kd.data.glue import SST2
from kd.experiment import Scale


def table(scale: Scale) -> Table:
    """Labels alone, plain KD, and the procedures."""
    return table_of(scale, SST2)
