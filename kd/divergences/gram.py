"""Gram matrices of the predictions: what examples, and classes, have in common."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd.divergences.divergence import Divergence, kept_rows
from kd.divergences.softened import Softened


@dataclasses.dataclass(frozen=True)
class BatchCorrelation(Softened, Divergence):
    """Squared difference of the products of all pairs of examples.

        losses_i = sum_j (<p_i, p_j> - <q_i, q_j>)^2

    so that the mean is |P P' - Q Q'|_F^2 / n for the n examples of a batch; it
    grows with n. No factor of the temperature is applied.

    Source: jin2023multilevel, batch-level alignment.
    """

    name = "batch_correlation"
    temperature: float = 4.0

    def rows(self, student, teacher, where):
        kept = kept_rows(where, student)[:, None]
        p = kept * jnp.exp(self.soften(student))
        q = kept * jnp.exp(self.soften(teacher))
        return jnp.sum(jnp.square(_gram(p) - _gram(q)), axis=1)


@dataclasses.dataclass(frozen=True)
class ClassCorrelation(Softened, Divergence):
    """Squared difference of the products of all pairs of classes over a batch.

        loss = 1/v sum_uv (sum_i p_iu p_iv - sum_i q_iu q_iv)^2

    that is |P'P - Q'Q|_F^2 / v for v classes, of which every example has an equal
    share; it grows with the square of the batch size. No factor of the temperature
    is applied.

    Source: jin2023multilevel, class-level alignment.
    """

    name = "class_correlation"
    temperature: float = 4.0

    def rows(self, student, teacher, where):
        kept = kept_rows(where, student)[:, None]
        p = kept * jnp.exp(self.soften(student))
        q = kept * jnp.exp(self.soften(teacher))
        present = jnp.any(((student > -jnp.inf) | (teacher > -jnp.inf)) & (kept > 0), 0)
        squares = jnp.square(_gram(p.T) - _gram(q.T))
        loss = jnp.sum(squares) / jnp.maximum(jnp.sum(present), 1)
        return jnp.full(len(student), loss)


def _gram(values: Float[Array, "n m"]) -> Float[Array, "n n"]:
    return jnp.matmul(values, values.T, precision=jax.lax.Precision.HIGHEST)
