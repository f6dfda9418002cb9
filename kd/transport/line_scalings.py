"""Sinkhorn scalings of a Laplace kernel on a line, kept as numbers or as logarithms."""

import abc
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.transport import line_blocks, line_scans

Distances = line_blocks.Distances | line_scans.Distances
Decays = line_blocks.Decays | line_scans.Decays


class Sums(NamedTuple):
    """Sums over all sites, one for every site."""

    total: Float[Array, "r c"]
    tilt: Float[Array, "r c"]
    """What is left of the site minus what is right of it."""


class Domain(abc.ABC):
    """What to do with scalings, arrays [r, c] that stand for numbers of at least 0."""

    @abc.abstractmethod
    def scaling(self, value: Float[Array, "r c"]) -> Float[Array, "r c"]:
        """The scaling that stands for `value`."""

    @abc.abstractmethod
    def log(self, scaling: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The logarithm of what a scaling stands for; -inf for 0."""

    @abc.abstractmethod
    def ratio(
        self, scaling: Float[Array, "*shape"], other: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """The number `scaling` stands for over that of `other`."""

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
        return Sums(factor * sums.total, factor * sums.tilt)

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

    decays: Decays

    def scaling(self, value):
        return value

    def log(self, scaling):
        return jnp.log(scaling)

    def ratio(self, scaling, other):
        return scaling / other

    def _sums(self, source, weights):
        return Sums(*self.decays.sums(source * weights)), None

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

    distances: line_scans.Distances

    def scaling(self, value):
        exists = value > 0
        return jnp.where(exists, jnp.log(jnp.where(exists, value, 1)), -jnp.inf)

    def log(self, scaling):
        return scaling

    def ratio(self, scaling, other):
        return jnp.exp(scaling - other)

    def _sums(self, source, weights):
        # Whatever the unit, the sum is the same: it has no derivative.
        unit = jax.lax.stop_gradient(self.distances).largest(source)
        unit = jnp.where(jnp.isneginf(unit), 0, unit)  # where there is no source
        here = jnp.exp(source - unit) * weights
        return Sums(*self.distances.decays(unit).sums(here)), unit

    def _product(self, target, unit):
        return jnp.exp(target + unit)

    def _inverse(self, total, unit):
        return -(jnp.log(total) + unit)
