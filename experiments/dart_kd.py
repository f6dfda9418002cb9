"""DART: data to text by a small decoder, distilled token by token.

`webnlg_kd`, on the data of wen2023fdistill's data-to-text experiments. The official
training split is needed, which is not everywhere to be had. Not measured yet.

    make exp NAME=dart_kd DATA_DIR=~/data
"""

from experiments import webnlg_kd
from kd.data.dart import DART
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """As `webnlg_kd`, on DART."""
    return webnlg_kd.experiment(scale, DART)
