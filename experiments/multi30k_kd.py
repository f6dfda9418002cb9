"""Multi30k: translation by a small encoder-decoder, distilled token by token.

The KL of wen2023fdistill, averaged over the tokens of the translations, beside these.
The student is half as deep and half as wide as its teacher. Scored by BLEU and chrF.

    make exp NAME=multi30k_kd DATA_DIR=~/data
"""

import dataclasses

from experiments import multi30k_teacher
from kd.divergences import KL, PerToken
from kd.experiment import Experiment, Network, Scale
from kd.objective import CrossEntropy


def experiment(scale: Scale) -> Experiment:
    """Translations, and the teacher's predictions in them."""
    recipe = multi30k_teacher.experiment(scale)
    taught = dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        answers="live",
        objective=0.5 * PerToken(CrossEntropy()) + 0.5 * PerToken(KL()),
    )
    if scale == "paper":
        return dataclasses.replace(taught, start=Network(place="google-t5/t5-small"))
    small = multi30k_teacher.mini(num_layers=2, width=128)
    return dataclasses.replace(taught, student=small)
