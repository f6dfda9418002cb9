"""Sinkhorn scalings of a Laplace kernel on a line, kept as numbers or as logarithms."""

import abc
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.transport import line_sums
from kd.transport.line_sums import Ways


class Sums(NamedTuple):
    """A sum over all sites in its three parts."""

    left: Float[Array, "r c"]
    here: Float[Array, "r c"]
    right: Float[Array, "r c"]

    @property
    def total(self) -> Float[Array, "r c"]:
        """The sum over all sites."""
        return self.left + self.here + self.right

    @property
    def tilt(self) -> Float[Array, "r c"]:
        """The left part minus the right part."""
        return self.left - self.right


class Domain(abc.ABC):
    """What to do with scalings, arrays [r, c] that stand for numbers of at least 0."""

    @abc.abstractmethod
    def scaling(self, value: Float[Array, "r c"]) -> Float[Array, "r c"]:
        """The scaling that stands for `value`."""

    @abc.abstractmethod
    def log(self, scaling: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The logarithm of what a scaling stands for; -inf for 0."""

    @abc.abstractmethod
    def _sums(
        self, source: Float[Array, "r c"], weights: Float[Array, "r c"]
    ) -> tuple[Sums, Float[Array, "r c"] | None]:
        """sum_j exp(-|t_k - t_j|) source_j weights_j, and the unit it is kept in."""

    @abc.abstractmethod
    def _product(
        self, target: Float[Array, "r c"], unit: Float[Array, "r c"] | None
    ) -> Float[Array, "r c"]:
        """The number target times unit."""

    @abc.abstractmethod
    def _inverse(
        self, total: Float[Array, "r c"], unit: Float[Array, "r c"] | None
    ) -> Float[Array, "r c"]:
        """The scaling 1 / (total times unit)."""

    def between(
        self,
        target: Float[Array, "r c"],
        source: Float[Array, "r c"],
        weights: Float[Array, "r c"],
    ) -> Sums:
        """target_k sum_j exp(-|t_k - t_j|) source_j weights_j, weights of any sign."""
        sums, unit = self._sums(source, weights)
        factor = self._product(target, unit)
        return Sums(*(factor * part for part in sums))

    def normalise(
        self,
        source: Float[Array, "r c"],
        weights: Float[Array, "r c"],
        mass: Float[Array, "r c"],
    ) -> tuple[Float[Array, "r c"], Float[Array, "r c"]]:
        """The target for which `between` has a total of 1 wherever there is mass.

        Returns:
            That target, 0 where `mass` is 0, and the tilt of those sums.
        """
        sums, unit = self._sums(source, weights)
        exists = mass > 0
        # Where nothing has mass the sums are 0 as well: 0 / 1 instead of 0 / 0.
        total = jnp.where(exists, sums.total, 1)
        none = self.scaling(jnp.zeros_like(mass))
        target = jnp.where(exists, self._inverse(total, unit), none)
        return target, jnp.where(exists, sums.tilt / total, 0)


@dataclasses.dataclass(frozen=True)
class KernelDomain(Domain):
    """Scalings as they are, for lines so short that no sum underflows."""

    decays: Ways

    @classmethod
    def of(cls, distances: Ways) -> "KernelDomain":
        """The domain for sites at these distances."""
        return cls(line_sums.decays(distances))

    def scaling(self, value):
        return value

    def log(self, scaling):
        return jnp.log(scaling)

    def _sums(self, source, weights):
        here = source * weights
        left, right = line_sums.sums(self.decays, here)
        return Sums(left, here, right), None

    def _product(self, target, unit):
        return target

    def _inverse(self, total, unit):
        return 1 / total


@dataclasses.dataclass(frozen=True)
class LogDomain(Domain):
    """Logarithms of scalings, for lines of any length.

    The unit of every site is the largest term of its sum. As a function of the site
    this is a maximum of functions of slope 1, so it changes by no more than the
    distance: measured in these units, too, no decay exceeds 1.
    """

    distances: Ways

    @classmethod
    def of(cls, distances: Ways) -> "LogDomain":
        """The domain for sites at these distances."""
        return cls(distances)

    def scaling(self, value):
        exists = value > 0
        return jnp.where(exists, jnp.log(jnp.where(exists, value, 1)), -jnp.inf)

    def log(self, scaling):
        return scaling

    def _sums(self, source, weights):
        # Whatever the unit, the sum is the same: it has no derivative.
        unit = line_sums.largest(jax.lax.stop_gradient(self.distances), source)
        unit = jnp.where(jnp.isneginf(unit), 0, unit)  # where there is no source
        here = jnp.exp(source - unit) * weights
        left, right = line_sums.sums(line_sums.decays(self.distances, unit), here)
        return Sums(left, here, right), unit

    def _product(self, target, unit):
        return jnp.exp(target + unit)

    def _inverse(self, total, unit):
        return -(jnp.log(total) + unit)
