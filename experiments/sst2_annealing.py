"""SST-2: a teacher whose logits grow, then the labels (jafari2021annealing).

Two phases, each an experiment: the student regresses on the teacher's logits times
1/7, 2/7, ..., 1, without labels; the network of its best evaluation on dev goes on from
there on the labels alone. `start.checkpoint=last` takes that of the last step instead,
as the paper does not.

Paper scale has the authors' 14 and 4 epochs, 7 levels, batches of 32 and 2e-5, with the
networks of `sst2_ce` in place of theirs, which are RoBERTas. Smaller scales divide the
steps of `sst2_ce` in about the same way.

Measured at mini scale on one seed, an anecdote, on two shared CPU cores: 80.73 %
(teacher 80.62 %, `sst2_ce` 79.93 %; one standard error is 1.3 points). The best
evaluation of phase one was at step 2,000 of 3,000, four sevenths of the teacher's
logits, 80.16 %; the last had 78.33 %. 55 s for phase one, 26 s for phase two.

    make exp NAME=sst2_annealing
"""

import dataclasses

from experiments import sst2_ce
from kd.divergences import annealing
from kd.experiment import Experiment, Network, Scale

_EPOCH = 2105
"""Batches of 32 in the 67,349 examples."""


def experiment(scale: Scale) -> Experiment:
    """Phase two, on the labels; phase one is what it starts from."""
    base = sst2_ce.experiment(scale)
    if scale == "paper":
        slow = dataclasses.replace(base.optimizer, learning_rate=2e-5)
        base = dataclasses.replace(base, optimizer=slow)
    first, second = {
        "paper": (14 * _EPOCH, 4 * _EPOCH),
        "small": (1150, 350),
        "mini": (3000, 1000),
    }[scale]
    phase_one = dataclasses.replace(
        base,
        objective=annealing(first, num_levels=7),
        num_epochs=0,
        num_steps=first,
    )
    return dataclasses.replace(
        base,
        start=Network(recipe=phase_one, checkpoint="best"),
        num_epochs=0,
        num_steps=second,
    )
