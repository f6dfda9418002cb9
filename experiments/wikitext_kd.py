"""WikiText-2: a language model distilled token by token (hinton2015distilling).

Text and the teacher's predictions in equal parts, the KL averaged over all tokens of a
batch, as cui2024sinkhorn and wen2023fdistill do in theirs.

    make exp NAME=wikitext_kd DATA_DIR=~/data
"""

import dataclasses

from experiments import wikitext_ce
from kd.data.language import LanguageTask
from kd.divergences import KL, PerToken
from kd.experiment import Experiment, Scale
from kd.objective import CrossEntropy


def experiment(scale: Scale, task: LanguageTask | None = None) -> Experiment:
    """As `wikitext_ce`, and the teacher's predictions."""
    return dataclasses.replace(
        wikitext_ce.experiment(scale, task),
        objective=0.5 * PerToken(CrossEntropy()) + 0.5 * PerToken(KL()),
    )
