"""Correlation distances: of the classes within an example, and across a batch.

A correlation distance 1 - <a, b> of two normalised vectors is half the squared
distance |a - b|^2, and summed up in that form: nothing cancels where it is small,
and every entry has its non-negative share. A vector that does not vary is normalised
to 0, at a distance of 1/2 from every other and of 0 from another such; one of a norm
below 1e-8 counts as shorter than it is.

Where a vector x of the student does not vary (all of a head that starts at 0) a
correlation has no derivative, since nearby it is anything from -1 to 1. There the
gradient is that of |a / |x| - b / |b||^2 / 2, of the centred a and b but the length of
x itself, held constant: the student is pulled the teacher's way, with a strength that
the scale of x sets. Where the teacher does not vary it is 0.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd.divergences.divergence import Divergence, kept_rows
from kd.divergences.softened import Rescaled


@dataclasses.dataclass(frozen=True)
class ValueCorrelation(Rescaled, Divergence):
    """Cosine distances between the predictions, of rows and of columns.

        loss = temperature^2 (1 - mean_i cos(p_i., q_i.) + 1 - mean_v cos(p_.v, q_.v))

    over the n examples i and the classes v of a batch; the share of example i in
    the second mean is n / v sum_v 1/2 (p_iv / |p_.v| - q_iv / |q_.v|)^2. Between 0
    and 2 at temperature 1.

    Source: kim2024r2kd, value loss (weight 2 in its code, whose absolute values
    change nothing: probabilities have no negative cosine).
    """

    name = "value_correlation"
    temperature: float = 4.0

    def rows(self, student, teacher, where):
        p, q = jnp.exp(self.soften(student)), jnp.exp(self.soften(teacher))
        kept = kept_rows(where, student)
        present = _present(student, teacher, kept)
        within = _distance(p, q, axis=1)
        across = _distance_across(p * kept[:, None], q * kept[:, None], kept, present)
        return self.factor * (within + across)


@dataclasses.dataclass(frozen=True)
class DIST(Rescaled, Divergence):
    """Pearson correlation distances, of rows (inter) and of columns (intra).

        loss = temperature^2 (inter (1 - mean_i pearson(p_i., q_i.))
                              + intra (1 - mean_v pearson(p_.v, q_.v)))

    over the n examples i and the classes v of a batch; the share of example i in
    the second mean is n / v sum_v 1/2 (a_iv - b_iv)^2 of the centred, normalised
    columns a, b. Asks for the same relations between classes and between examples,
    not for the same probabilities.

    Where all logits of an example are equal, or those of all examples, the distance
    there is 1/2 and the gradient the bounded one of this file's first lines.

    Args:
        inter: weight of the relations between the classes of an example.
        intra: weight of the relations between the examples in a class.

    Source: huang2022dist (beta is inter, gamma intra).
    """

    name = "dist"
    inter: float = 1.0
    intra: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.inter, self.intra) < 0:
            raise ValueError(
                f"inter and intra must be at least 0, got {self.inter} and {self.intra}"
            )

    def rows(self, student, teacher, where):
        p, q = jnp.exp(self.soften(student)), jnp.exp(self.soften(teacher))
        kept = kept_rows(where, student)
        present = _present(student, teacher, kept)
        within = _distance(_centre(p, present, 1), _centre(q, present, 1), axis=1)
        rows = kept[:, None]
        across = _distance_across(
            _centre(p, rows, 0), _centre(q, rows, 0), kept, present
        )
        return self.factor * (self.inter * within + self.intra * across)


@dataclasses.dataclass(frozen=True)
class RankCorrelation(Divergence):
    """Spearman's rank correlation distance, with ranks that have a gradient.

        rank(z)_v = sum_w sigmoid((z_v - z_w) / softness)
        losses_i = 1 - pearson(rank(s_i), rank(t_i))

    Between 0 and 2. As the softness tends to 0 the ranks tend to the true ones and
    their gradient to 0. Where all logits of an example are equal the loss is 1/2 and
    its gradient the bounded one of this file's first lines. Needs memory for b v^2
    numbers.

    Args:
        softness: of the ranks, positive, in units of the logits.

    Source: kim2024r2kd, rank loss, whose code takes the true ranks: it has no
    gradient and trains nothing. Soft ranks by sigmoids: qin2010approximation.
    """

    name = "rank_correlation"
    row_by_row = True
    softness: float = 1.0

    def __post_init__(self) -> None:
        if not self.softness > 0:
            raise ValueError(f"softness must be positive, got {self.softness}")

    def rows(self, student, teacher, where):
        del where
        present = (student > -jnp.inf) | (teacher > -jnp.inf)
        ours, theirs = (self._ranks(logits, present) for logits in (student, teacher))
        weights = present.astype(student.dtype)
        return _distance(_centre(ours, weights, 1), _centre(theirs, weights, 1), axis=1)

    def _ranks(
        self, logits: Float[Array, "b v"], present: Bool[Array, "b v"]
    ) -> Float[Array, "b v"]:
        # Classes ruled out are below all others and level with each other.
        lowest = -jnp.finfo(logits.dtype).max / 4
        logits = jnp.where(logits > -jnp.inf, logits, lowest)
        above = (logits[:, :, None] - logits[:, None, :]) / self.softness
        return jnp.sum(jax.nn.sigmoid(above), axis=-1, where=present[:, None, :])


def _present(
    student: Float[Array, "b v"], teacher: Float[Array, "b v"], kept: Float[Array, "b"]
) -> Float[Array, "1 v"]:
    """1 for the classes that are not ruled out everywhere."""
    possible = (student > -jnp.inf) | (teacher > -jnp.inf)
    present = jnp.any(possible & (kept[:, None] > 0), axis=0, keepdims=True)
    return present.astype(student.dtype)


def _centre(
    values: Float[Array, "b v"], weights: Float[Array, "..."], axis: int
) -> Float[Array, "b v"]:
    """Values less their mean along an axis, 0 where the weight is.

    Exactly 0 where they do not vary by more than rounding; the gradient there is of
    that difference divided by their length, a constant.
    """
    weights = jnp.broadcast_to(weights, values.shape)
    count = jnp.maximum(jnp.sum(weights, axis, keepdims=True), 1)
    mean = jnp.sum(weights * values, axis, keepdims=True) / count
    centred = weights * (values - mean)
    # Their own differences are exact; their mean is not.
    fixed, counted = jax.lax.stop_gradient(values), weights > 0
    highest, lowest = (
        of(fixed, axis, keepdims=True, where=counted, initial=start)
        for of, start in ((jnp.max, -jnp.inf), (jnp.min, jnp.inf))
    )
    varies = highest - lowest > 4 * jnp.finfo(values.dtype).eps * jnp.abs(highest)
    length = jnp.sqrt(jnp.sum(weights * jnp.square(fixed), axis, keepdims=True))
    nothing = centred - jax.lax.stop_gradient(centred)
    return jnp.where(varies, centred, nothing / jnp.where(length > 0, length, 1))


def _squares(
    a: Float[Array, "b v"], b: Float[Array, "b v"], axis: int
) -> Float[Array, "b v"]:
    """Entries that sum up to the correlation distance along an axis."""

    def normalize(values):
        squared = jnp.sum(jnp.square(values), axis, keepdims=True)
        squared = jnp.where(squared > 0, jnp.maximum(squared, 1e-16), 1)
        return values / jnp.sqrt(squared)

    return 0.5 * jnp.square(normalize(a) - normalize(b))


def _distance(a, b, *, axis):
    return jnp.sum(_squares(a, b, axis), axis)


def _distance_across(a, b, kept, present):
    """Mean over the classes of the distance of columns, in shares of the rows."""
    per_class = jnp.sum(kept) / jnp.maximum(jnp.sum(present), 1)
    return per_class * jnp.sum(present * _squares(a, b, axis=0), axis=1)
