"""MRPC: who teaches, when, on what; plain KD as the baseline, 5 seeds.

Two layers of MiniLM learn from all six, fine-tuned, in 600 steps, five epochs. Same
teacher, same steps in every row, with the settings of the experiments; nothing is
tuned. Rows that ask more often than plain KD stand there once more with as many
questions, as in `procedures_images`, where it is also said what is not counted.

    make table NAME=procedures_mrpc DATA_DIR=~/data WEIGHTS=~/weights/minilm
"""

from experiments.tables._text import table_of
from kd.compare.table import Table
from kd.data.glue import MRPC
from kd.experiment import Scale


def table(scale: Scale) -> Table:
    """Labels alone, plain KD, and the procedures."""
    return table_of(scale, MRPC)
