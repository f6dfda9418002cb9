"""Rows that tables of procedures have in common, whatever their examples are."""

import dataclasses

from kd.divergences import annealing, continuation
from kd.experiment import Experiment, Network

EQUAL = ", equal queries"
"""Ends the name of a row that asks its teachers as often as plain KD, by fewer
answers."""


def annealed(labels: Experiment, num_steps: int) -> Experiment:
    """Annealing-KD in two phases that take as many steps together.

    All seeds go on from one network of phase one.

    Args:
        labels: the experiment on labels alone.
        num_steps: of both phases, three quarters of them of phase one.
    """
    first = num_steps * 3 // 4
    phase_one = of_length(labels, first)
    phase_one = dataclasses.replace(phase_one, objective=annealing(first, num_levels=7))
    return dataclasses.replace(
        of_length(labels, num_steps - first),
        start=Network(recipe=phase_one, checkpoint="best"),
    )


def continued(labels: Experiment, num_steps: int) -> Experiment:
    """Continuation-KD, by the defaults of this project."""
    return dataclasses.replace(
        of_length(labels, num_steps), objective=continuation(num_steps)
    )


def of_length(experiment: Experiment, num_steps: int) -> Experiment:
    """The same in so many steps."""
    return dataclasses.replace(experiment, num_epochs=0, num_steps=num_steps)


def asked_about(experiment: Experiment, share: float) -> Experiment:
    """The same, whose teachers are asked about a share of the examples only."""
    data = dataclasses.replace(experiment.data, unanswered=1 - share)
    return dataclasses.replace(experiment, answers="cached", data=data)
