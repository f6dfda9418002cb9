"""SST-2: a teacher asked about sentences with a span of another one, too.

`sst2_kd`, and its KL once more on sentences some of whose tokens are another one's
(yoon2021ssmix, at random places); labels of these take no part. What
wang2022augmentation does with images, done with text: no paper reports on it.

Measured at mini scale on one seed, an anecdote (one standard error is 1.4 points), on
one CPU core: 80.16 % (teacher 82.11 %), 85 s for the student.

    make exp NAME=sst2_tokenmix
"""

import dataclasses

from experiments import sst2_kd
from kd.experiment import Experiment, Scale
from kd.views import Beside, TokenMix


def experiment(scale: Scale) -> Experiment:
    """As `sst2_kd`, and the teacher alone on mixed sentences."""
    return dataclasses.replace(sst2_kd.experiment(scale), view=Beside(TokenMix()))
