"""The largest logits of every prediction, and the sum of all others."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8

from kd.networks.kept.record import Streamed
from kd.objective import Loss
from kd.objective.partition import largest_and_rest
from kd.types import Outputs, TopLogits

_LOW = 16
"""Bits of an id in its first array; those above are packed."""
_SMALLEST = -65504.0
"""Of the finite numbers of float16."""


@dataclasses.dataclass(frozen=True)
class TopK(Streamed):
    """The k largest logits t of a prediction, and the log-sum-exp of the others.

        values_i = t_i - max t                                       float16
        tail = temperature log sum_(i not in ids) exp(t_i / temperature) - max t

    the tail in float32, for every temperature that a loss has. Losses then compare
    predictions over the k classes and one of all others (`kd.objective.partition`):
    divergences, and at most those of all classes, if they say so by `Loss.coarsens`.

    Rounding moves a logit that is g below the largest by at most 2^-11 g (or 2^-25),
    and so log q_i of the softened prediction by at most

        2^-11 (g_i + g_k) / temperature

    with g_k of the smallest logit that is kept. The tail is exact up to float32. Bytes
    a prediction: 2 k of values, 2 k of ids (and b k / 8 of a vocabulary of more than
    2^16 classes, b bits above 16), 4 of every tail.

    Args:
        k: how many, at least 1 and less than there are classes.
        temperatures: of the tails; by default those of the losses.
    """

    rules_out = frozenset({"values", "tails"})
    k: int = 64
    temperatures: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")
        if not all(temperature > 0 for temperature in self.temperatures):
            raise ValueError(f"temperatures must be positive, got {self.temperatures}")

    def problems(self, losses: Sequence[Loss], num_teachers: int) -> Iterator[str]:
        if num_teachers > 1:
            yield (
                f"{_name(self)} keeps other classes of each of {num_teachers} "
                "teachers, which have no mean; set keep=hidden, keep=dense or "
                "answers=live"
            )
        for loss in losses:
            if not loss.needs_teacher:
                continue
            temperature = loss.tail_temperature
            if temperature is None:
                yield (
                    f"{loss.name} needs the logits of all classes, at temperatures "
                    f"known beforehand where it has one, and {_name(self)} keeps the "
                    "largest and the sum of the others; set keep=hidden, keep=dense "
                    "or answers=live"
                )
            elif self.temperatures and temperature not in self.temperatures:
                yield (
                    f"keep.temperatures={_listed(self.temperatures)} lacks "
                    f"{temperature:g}, that of {loss.name}"
                )

    def for_losses(self, losses: Sequence[Loss]) -> "TopK":
        if self.temperatures:
            return self
        found = {loss.tail_temperature for loss in losses if loss.needs_teacher}
        known = sorted(float(one) for one in found if one is not None)
        return dataclasses.replace(self, temperatures=tuple(known))

    def problem(self, outputs: Outputs) -> str:
        num_classes = outputs.logits.shape[-1]
        if self.k >= num_classes:
            return (
                f"{_name(self)}: there are {num_classes:,} classes, so k is at most "
                f"{num_classes - 1:,}; keep=dense keeps all"
            )
        return ""

    def described(self, outputs: Outputs) -> str:
        at = _listed(self.temperatures)
        several = "s" if len(self.temperatures) > 1 else ""
        return (
            f"top {self.k:,} of {outputs.logits.shape[-1]:,} logits and the tail at "
            f"temperature{several} {at}"
        )

    def arrays(self, outputs: Outputs) -> dict[str, Array]:
        logits = outputs.logits.astype(jnp.float32)
        # Else the compiler halves before it chooses, and sorts all: 100 times slower.
        values, ids = jax.lax.optimization_barrier(jax.lax.top_k(logits, self.k))
        largest = jnp.where(values[..., :1] > -jnp.inf, values[..., :1], 0)
        gaps = values - largest
        held = jnp.maximum(gaps, _SMALLEST)
        kept = {
            "values": jnp.where(gaps > -jnp.inf, held, gaps).astype(jnp.float16),
            "tails": jnp.stack(
                [
                    self._rest(logits - largest, ids, temperature)
                    for temperature in self.temperatures
                ],
                axis=-1,
            ),
            "ids": ids.astype(jnp.uint16),
        }
        if bits := _bits_above(logits.shape[-1]):
            kept["high_ids"] = packed(ids >> _LOW, bits)
        return kept

    def _rest(self, logits, ids, temperature):
        everywhere = jnp.ones(logits.shape[:-1], bool)
        return largest_and_rest(logits, ids, temperature, everywhere)[..., -1]

    def outputs(self, arrays: Mapping[str, Array], shared: tuple[()]) -> Outputs:
        del shared
        ids = arrays["ids"].astype(jnp.int32)
        if "high_ids" in arrays:
            ids += unpacked(arrays["high_ids"], self.k) << _LOW
        return TopLogits(
            ids=ids,
            values=arrays["values"],
            tails=arrays["tails"],
            temperatures=self.temperatures,
        ).outputs()

    def errors(self, live: Outputs, told: Outputs) -> dict[str, Array]:
        """The mass outside the k classes, and the largest error of a log-probability.

        At every temperature; errors are those of the k and of the tail.
        """
        top = told.top
        assert top is not None
        logits = live.logits.astype(jnp.float32)
        everywhere = jnp.ones(logits.shape[:-1], bool)
        outside, errors = [], []
        for temperature in self.temperatures:
            exact, found = (
                jax.nn.log_softmax(z / temperature)
                for z in (
                    largest_and_rest(logits, top.ids, temperature, everywhere),
                    top.logits(temperature),
                )
            )
            outside.append(jnp.exp(exact[..., -1]))
            differ = jnp.where(exact == found, 0, jnp.abs(exact - found))
            errors.append(jnp.max(differ, axis=-1))
        return {
            "mass_outside": jnp.stack(outside, axis=-1),
            "log_probability_error": jnp.stack(errors, axis=-1),
        }


def packed(numbers: Int[Array, "*n k"], bits: int) -> UInt8[Array, "*n p m"]:
    """Whole numbers below 2^bits: of each of p bits those of all k, in m bytes."""
    single = (numbers[..., None, :] >> jnp.arange(bits)[:, None]) & 1
    return jnp.packbits(single.astype(jnp.uint8), axis=-1)


def unpacked(stored: UInt8[Array, "*n p m"], k: int) -> Int[Array, "*n k"]:
    """The k numbers."""
    single = jnp.unpackbits(stored, axis=-1, count=k).astype(jnp.int32)
    return jnp.sum(single << jnp.arange(stored.shape[-2])[:, None], axis=-2)


def _bits_above(num_classes: int) -> int:
    """Of the largest id, those that the first array has no room for."""
    return max((num_classes - 1).bit_length() - _LOW, 0)


def _name(keep: TopK) -> str:
    return f"keep={keep.k}"


def _listed(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
