"""Tiny Shakespeare: a language model distilled token by token, as `wikitext_kd`.

make exp NAME=shakespeare_kd DATA_DIR=~/data
"""

from experiments import wikitext_kd
from kd.data.language import TINY_SHAKESPEARE
from kd.experiment import Experiment, Scale


def experiment(scale: Scale) -> Experiment:
    """As `wikitext_kd`, on a million characters of plays."""
    return wikitext_kd.experiment(scale, TINY_SHAKESPEARE)
