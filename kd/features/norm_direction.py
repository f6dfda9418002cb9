"""Norm and direction: long features that point to their class."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kd.features.feature import VectorLoss
from kd.features.layers import Misfit
from kd.features.norms import gram, norm, scaled, unit
from kd.features.projection import fitted, fitting_parameters
from kd.objective import nan_without_class


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormAndDirection(VectorLoss):
    """How far a feature reaches towards its class, against the longer of the two.

        losses_i = 1 - <s_i, e_{y_i}> / max(|s_i|, |t_i|)

    where e_k is the direction of the teacher's mean feature of class k; between 0 and
    2, no unit. A student shorter than the teacher grows, a longer one turns. Not 0
    where student and teacher agree, but where both point to their class. Where the
    widths differ a learned linear projection of the student comes first. Reads
    `batch["labels"]`; one that is negative or has no class mean gives NaN.

    Args:
        student_layer: which of the student's layers.
        teacher_layer: which of the teacher's.
        read: how positions become a vector: "mean", "first" or "all".
        class_means: the teacher's mean feature of every class over the training set,
            as `class_means` makes them; () to take those over the batch, which
            couples its examples.

    Source: wang2023norm, with class means over the training set. Their code
    projects by batch norm, dropout and a linear map.
    """

    name = "norm_and_direction"
    class_means: tuple[tuple[float, ...], ...] = ()

    @property
    def reads_labels(self) -> bool:
        return True

    def parameters(self, key, student_width, teacher_width, num_classes):
        if self.class_means and np.shape(self.class_means) != (
            num_classes,
            teacher_width,
        ):
            raise Misfit(
                f"class_means are {np.shape(self.class_means)}, the teacher has "
                f"{num_classes} classes and features of width {teacher_width}"
            )
        return fitting_parameters(key, student_width, teacher_width)

    def rows(self, params, student, teacher, labels, where):
        if labels is None:
            raise ValueError("NormAndDirection points to classes; give labels=")
        student = fitted(params, student, teacher)
        if self.class_means:
            means = jnp.asarray(self.class_means, student.dtype)[labels]
            num_classes = len(self.class_means)
        else:
            means = _sums_of_classes(teacher, labels, where)
            num_classes = jnp.iinfo(labels.dtype).max  # not known here
        # At one scale, the larger: the square of a length would not be finite, and it
        # is what the gradient of a quotient divides by.
        both = scaled(jnp.concatenate([student, teacher], axis=1))[0]
        student, teacher = jnp.split(both, 2, axis=1)
        size = jnp.maximum(norm(student), norm(teacher))
        reach = student / jnp.where(size > 0, size, 1)[:, None]
        losses = 1 - jnp.sum(reach * unit(means), axis=1)
        return nan_without_class(losses, labels, num_classes)


def _sums_of_classes(
    features: Float[Array, "b d"], labels: Int[Array, "b"], where: Bool[Array, "b"]
) -> Float[Array, "b d"]:
    """For every row the direction of its class: the sum at a scale of its own."""
    together = (labels[:, None] == labels[None]) & where[None]
    largest = jnp.max(jnp.abs(features), axis=1)
    size = jnp.max(jnp.where(together, largest, 0), axis=1)
    size = jnp.maximum(size, jnp.finfo(features.dtype).tiny)
    return gram(jnp.where(together, 1 / size[:, None], 0), features.T)


def class_means(
    features: Float[np.ndarray, "num_examples e"],
    labels: Int[np.ndarray, "num_examples"],
    num_classes: int,
) -> tuple[tuple[float, ...], ...]:
    """The mean feature of every class, for `NormAndDirection`.

    Raises:
        ValueError: a class has no example.
    """
    means = []
    for k in range(num_classes):
        members = np.asarray(features, np.float64)[np.asarray(labels) == k]
        if not len(members):
            raise ValueError(f"class {k} has no example to take a mean of")
        means.append(tuple(members.mean(axis=0).tolist()))
    return tuple(means)
