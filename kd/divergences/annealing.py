"""From a soft teacher to a sharp one, and on to the labels.

    Annealing-KD       phase one: annealing(num_steps); phase two: the labels
    Continuation-KD    continuation(num_steps), both at once

The teacher's logits grow from a small multiple to what they are, so that a student too
small for the teacher has an easy target first. Schedules are of the optimizer step; an
experiment whose length is changed needs them made anew.
"""

import dataclasses

import jax.numpy as jnp
import optax

from kd.divergences.divergence import Divergence
from kd.divergences.logits import LogitMSE, squared_differences
from kd.objective import CrossEntropy, Loss, Mix
from kd.scheduled import scheduled
from kd.types import Weight


@dataclasses.dataclass(frozen=True)
class ContinuationKD(Divergence):
    """Squared distance of the logits, as far as it exceeds what is put up with.

        losses_i = max(0, sum_v (s_iv - amplitude t_iv)^2 - margin)

    In squared units of the logits, per example. An example within the margin has no
    gradient: the teacher is taken to be no more exact than that. Classes ruled out by
    both (logit -inf) do not count; it is infinite where one rules out what the other
    does not. With the defaults it is v times `LogitMSE`.

    Args:
        amplitude: factor on the teacher's logits, positive; the paper's phi.
        margin: at least 0; the paper's m.

    Source: jafari2022continuation, whose code is not public and of which this project
    has seen the abstract. Inferred: the squared norm, that max(0, .) is of each example
    and not of a batch, and that the amplitude is that of jafari2021annealing.
    """

    name = "continuation"
    row_by_row = True
    amplitude: float = 1.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not self.amplitude > 0:
            raise ValueError(f"amplitude must be positive, got {self.amplitude}")
        if not self.margin >= 0:
            raise ValueError(f"margin must be at least 0, got {self.margin}")

    @property
    def reads_classes(self) -> bool:
        return False

    def rows(self, student, teacher, where):
        del where
        squared, _ = squared_differences(student, teacher, self.amplitude)
        distance = jnp.sum(squared, axis=-1)
        # Not the maximum: an infinite margin, less an infinite distance, is no number.
        return jnp.where(distance > self.margin, distance - self.margin, 0)


@dataclasses.dataclass(frozen=True)
class Staircase:
    """1/k, 2/k, ..., 1: an amplitude that grows in k levels, as a schedule.

        phi(step) = min(k, 1 + step // steps_per_level) / k

    Args:
        num_levels: k.
        steps_per_level: of the optimizer; the last level lasts on.

    Source: jafari2021annealing, Phi(T) = T / T_max. Their code has no minimum: where
    the epochs are no multiple of T_max it ends above 1.
    """

    num_levels: int
    steps_per_level: int

    def __post_init__(self) -> None:
        if self.num_levels < 1 or self.steps_per_level < 1:
            raise ValueError(
                "a staircase needs at least one level and a step for each, got "
                f"{self.num_levels} levels of {self.steps_per_level} steps"
            )

    def __call__(self, step):
        level = jnp.minimum(1 + step // self.steps_per_level, self.num_levels)
        return level / self.num_levels


def annealing(num_steps: int, *, num_levels: int = 10) -> Mix:
    """Phase one of Annealing-KD: regression on the teacher's logits, which grow.

        mean_i LogitMSE(amplitude=phi(step))_i       phi: `Staircase`

    Without labels. Phase two is an experiment of its own that starts from what this one
    yields: `start=Network(recipe=phase_one, checkpoint="best")` with the labels alone
    as its objective; "last" for the network at full amplitude instead.

    Args:
        num_steps: of phase one; what is over goes to the last level.
        num_levels: T_max.

    Source: jafari2021annealing. The best network on dev may be of a level below the
    last, there as here.
    """
    amplitude = Staircase(num_levels, num_steps // num_levels)
    return 1.0 * scheduled(LogitMSE(), amplitude=amplitude)


def continuation(
    num_steps: int,
    *,
    amplitude: Weight | None = None,
    labels: Weight | None = None,
    margin: Weight = 0.0,
) -> Mix:
    """Continuation-KD: a growing teacher, then more and more the labels, in one run.

        psi CE + (1 - psi) ContinuationKD(amplitude=phi, margin=m)

    where psi, phi and m may each be a number or a schedule of the step.

    Args:
        num_steps: of the run, for the defaults.
        amplitude: phi, above 0; by default it grows evenly from 0.1 to 1 in the first
            half of the run.
        labels: psi, between 0 and 1; by default it grows evenly from 0 to 1.
        margin: m, at least 0.

    Source: jafari2022continuation, see `ContinuationKD`. All three defaults are this
    project's; that psi grows from 0 to 1 is stated there, how is not.
    """
    if amplitude is None:
        amplitude = optax.linear_schedule(0.1, 1.0, max(num_steps // 2, 1))
    if labels is None:
        labels = optax.linear_schedule(0.0, 1.0, num_steps)
    if callable(labels):
        rest = _Rest(labels)
    elif 0 <= labels <= 1:
        rest = 1 - labels
    else:
        raise ValueError(f"labels is a share, in [0, 1], got {labels}")
    numbers, schedules = {}, {}
    for name, value in (("amplitude", amplitude), ("margin", margin)):
        (schedules if callable(value) else numbers)[name] = value
    loss: Loss = ContinuationKD(**numbers)
    if schedules:
        loss = scheduled(loss, **schedules)
    return labels * CrossEntropy() + rest * loss


@dataclasses.dataclass(frozen=True)
class _Rest:
    """What a share that follows the step leaves of 1."""

    share: optax.Schedule

    def __call__(self, step):
        return 1 - self.share(step)
