"""DART: JS on texts that teacher and student write (wen2023fdistill).

`webnlg_js`, on the data of the paper's data-to-text experiments. The official training
split is needed, which is not everywhere to be had. Not measured yet.

    make exp NAME=dart_js DATA_DIR=~/data
"""

from experiments import webnlg_js
from kd.data.dart import DART
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """As `webnlg_js`, on DART."""
    return webnlg_js.experiment(scale, DART)
