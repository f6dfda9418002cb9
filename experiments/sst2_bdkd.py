"""SST-2: a student and its teacher that learn together (amara2022bdkd).

`fashion_mnist_bdkd` on text, with the weights and the temperature of `sst2_kd`. The
paper has images only. The peer is of the size that the teacher has at mini scale, and
begins from scratch at every scale, as peers do: what is compared is of mini scale.

Measured at mini scale on one seed, an anecdote (one standard error is 1.4 points), on
one CPU core: 79.13 %, and 80.28 % for the peer, with an ECE of 8.83 % and 9.05 %
(teacher 82.11 %, 11.81 %), 160 s for both.

    make exp NAME=sst2_bdkd
"""

import dataclasses

from experiments import sst2_ce, sst2_teacher
from kd.divergences import KL, BalancedKL
from kd.experiment import Experiment, Scale
from kd.objective import CrossEntropy
from kd.procedures.online import Online, Peer


def experiment(scale: Scale) -> Experiment:
    """The student with balanced divergences, and a peer of the small teacher's size."""
    length = 128 if scale == "paper" else 64
    teacher = Peer(
        network=sst2_teacher.experiment("mini", length=length).student,
        objective=0.1 * CrossEntropy() + 0.9 * KL(temperature=2.0),
    )
    return dataclasses.replace(
        sst2_ce.experiment(scale),
        objective=0.1 * CrossEntropy() + 0.9 * BalancedKL(temperature=2.0),
        procedure=Online(peers=(teacher,)),
    )
