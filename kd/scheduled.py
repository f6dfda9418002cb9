"""Losses whose settings change as training goes on."""

import copy
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kd.objective import Loss, OverRows, Wrapper, values_within
from kd.types import Batch, Head, Metrics, Outputs, Params, TopLogits


@dataclasses.dataclass(frozen=True)
class Scheduled(Wrapper):
    """Another loss with numbers among its settings that follow the optimizer step.

        scheduled(KL(), temperature=optax.linear_schedule(4.0, 1.0, 1000))
        scheduled(PerToken(KL()), **{"loss.temperature": schedule})

    Settings that a formula only computes with may vary: a temperature, a skew, an
    amplitude, an emphasis. Those that decide how it is computed (the number of
    iterations, or the epsilon of `SinKD`, which chooses the domain) may not, and fail
    when the step is compiled. Weights of terms take schedules by themselves.

    The loss is checked with the least and the greatest number of every schedule, by a
    run before its first step.

    Args:
        loss: what is computed.
        schedules: paths of settings, from the loss, and their functions of the step.
    """

    schedules: tuple[tuple[str, optax.Schedule], ...]

    def __post_init__(self) -> None:
        for path, _ in self.schedules:
            # Not yet with its numbers: making an experiment computes nothing.
            _checked(self.loss, path.split("."), None)
        object.__setattr__(self, "row_by_row", self.loss.row_by_row)
        super().__post_init__()

    @property
    def tail_temperature(self) -> float | None:
        """None where it follows the step: a tail is summed up beforehand."""
        if any(path.split(".")[-1] == "temperature" for path, _ in self.schedules):
            return None
        return super().tail_temperature

    def problem_within(self, num_steps: int) -> str:
        for path, schedule in self.schedules:
            values = values_within(schedule, num_steps)
            for step in (int(values.argmin()), int(values.argmax())):
                try:
                    _checked(self.loss, path.split("."), float(values[step]))
                except ValueError as error:
                    return f"{error}, by its schedule at step {step}"
        return super().problem_within(num_steps)

    def per_example_with_metrics(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[Float[Array, "b"], Metrics]:
        loss, settings = self._at(batch["step"])
        losses, metrics = loss.per_example_with_metrics(params, student, teacher, batch)
        return losses, metrics | settings

    def over_rows(
        self, batch: Batch, student: Head, teacher: Head | TopLogits | None
    ) -> OverRows | None:
        loss, settings = self._at(batch["step"])
        found = loss.over_rows(batch, student, teacher)
        if found is None:
            return None
        found = found._replace(metrics=found.metrics | settings)
        # What is computed row by row has no numbers of the device among its settings:
        # it follows the step, which `rows` have as well.
        if found.loss is loss:
            return found._replace(loss=self)
        wrapper = self.loss
        if isinstance(wrapper, Wrapper) and found.loss is getattr(loss, "loss", None):
            if not all(path.startswith("loss.") for path, _ in self.schedules):
                return None
            inner = {path.removeprefix("loss."): f for path, f in self.schedules}
            return found._replace(loss=scheduled(wrapper.loss, **inner))
        return found if _is_fixed(found.loss) else None

    def _at(self, step: Any) -> tuple[Loss, Metrics]:
        """The loss with its settings at a step, and these."""
        loss, settings = self.loss, {}
        for path, schedule in self.schedules:
            value = jnp.asarray(schedule(step), jnp.float32)
            loss = _with(loss, path.split("."), value)
            settings[path] = value
        return loss, settings


def scheduled(loss: Loss, **schedules: optax.Schedule) -> Scheduled:
    """The loss with settings that follow the step, see `Scheduled`."""
    return Scheduled(loss, tuple(schedules.items()))


def _is_fixed(record: Any) -> bool:
    """Whether no setting of a record is a number on the device."""
    if dataclasses.is_dataclass(record):
        fields = dataclasses.fields(record)
        return all(_is_fixed(getattr(record, field.name)) for field in fields)
    return not isinstance(record, jax.Array)


def _checked(record: Any, path: list[str], value: float | None) -> Any:
    """The record with another setting, through its own checks; None for its own."""
    name, *inner = path
    names = [field.name for field in dataclasses.fields(record) if field.init]
    if name not in names:
        raise ValueError(
            f"{type(record).__name__} has no setting {name!r}; it has "
            f"{', '.join(names)}"
        )
    current = getattr(record, name)
    if inner:
        return dataclasses.replace(record, **{name: _checked(current, inner, value)})
    if not isinstance(current, float):
        raise ValueError(
            f"{name} of {type(record).__name__} is {current!r}, not a number that can "
            "follow the step"
        )
    return dataclasses.replace(record, **{name: current if value is None else value})


def _with(record: Any, path: list[str], value: Array) -> Any:
    """The same without the checks, which a number on the device cannot pass."""
    name, *inner = path
    changed = copy.copy(record)
    inside = _with(getattr(record, name), inner, value) if inner else value
    object.__setattr__(changed, name, inside)
    return changed
