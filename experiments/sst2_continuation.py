"""SST-2: a growing teacher that gives way to the labels (jafari2022continuation).

One run: the student comes near the teacher's logits, first a tenth of them and from
the middle of the run all, while the weight moves evenly from them to the labels. No
margin. The paper's settings are not known to this project, and its code is not public;
these are the defaults of `kd.divergences.continuation`, in the budget of `sst2_ce`.

Measured at mini scale on one seed, an anecdote, on two shared CPU cores: 78.90 %
(teacher 80.62 %, `sst2_ce` 79.93 %; one standard error is 1.3 points), the best
evaluation 80.96 % at step 2,000 of 4,000; 44 s for the student.

    make exp NAME=sst2_continuation
"""

import dataclasses

from experiments import sst2_ce
from kd.divergences import continuation
from kd.experiment import Experiment, Scale

_EPOCH = 2105
"""Batches of 32 in the 67,349 examples."""


def experiment(scale: Scale) -> Experiment:
    """The teacher's logits, and more and more the labels."""
    base = sst2_ce.experiment(scale)
    num_steps = base.num_steps or base.num_epochs * _EPOCH
    return dataclasses.replace(
        base, objective=continuation(num_steps), num_epochs=0, num_steps=num_steps
    )
