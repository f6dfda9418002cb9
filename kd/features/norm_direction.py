"""Norm and direction: long features that point to their class."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kd.features.feature import VectorLoss
from kd.features.norms import gram, norm, scaled, unit
from kd.features.projection import fitted, fitting_parameters
from kd.objective import nan_without_class
from kd.types import Batch, Embedding, Outputs, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormAndDirection(VectorLoss):
    """How far a feature reaches towards its class, against the longer of the two.

        losses_i = 1 - <s_i, e_{y_i}> / max(|s_i|, |t_i|)

    where e_k is the direction of the teacher's mean feature of class k; between 0 and
    2, no unit. A student shorter than the teacher grows, a longer one turns. Not 0
    where student and teacher agree, but where both point to their class. Where the
    widths differ a learned linear projection of the student comes first. Reads
    `batch["labels"]`; one that is negative, or whose class has no mean, gives NaN.

    Args:
        student_layer: which of the student's layers.
        teacher_layer: which of the teacher's.
        read: how positions become a vector: "mean", "first" or "all".
        class_means: "training" for those over the training set, which a run computes
            once and hands over with every batch; "batch" for those over the batch,
            which couples its examples.

    Source: wang2023norm. Their code projects by batch norm, dropout and a linear map,
    and rounds the class means to four decimals.
    """

    name = "norm_and_direction"
    class_means: Literal["training", "batch"] = "training"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_means not in ("training", "batch"):
            raise ValueError(
                f'class_means is "training" or "batch", got {self.class_means!r}'
            )

    @property
    def reads_labels(self) -> bool:
        return True

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        return (*super().embeddings, *self._of_classes)

    @property
    def _of_classes(self) -> tuple[Embedding, ...]:
        if self.class_means == "batch":
            return ()
        return (Embedding(self.teacher_layer, self.read, "class"),)

    def parameters(self, key, student_width, teacher_width, num_classes):
        del num_classes
        return fitting_parameters(key, student_width, teacher_width)

    def __call__(
        self,
        student: Float[Array, "b d"],
        teacher: Float[Array, "b e"],
        *,
        params: Params = (),
        labels: Int[Array, "b"] | None = None,
        where: Bool[Array, "b"] | None = None,
        means: Float[Array, "b e"] | None = None,
    ) -> Float[Array, "b"]:
        """As of any loss of vectors.

        Args:
            student: see `VectorLoss`.
            teacher: likewise.
            params: likewise.
            labels: likewise.
            where: likewise.
            means: the teacher's mean feature of each row's class over the training
                set, such as `class_means(...)[labels]`; None where those of the batch
                are taken.

        Raises:
            ValueError: there are no labels, or no means, and they are needed.
        """
        if self.class_means == "training":
            if means is None:
                raise ValueError(
                    "NormAndDirection points to the means of classes over the training "
                    'set; give means=, or class_means="batch" for those of the batch'
                )
            params = {"projection": params, "means": means}
        return super().__call__(
            student, teacher, params=params, labels=labels, where=where
        )

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        ours, theirs = self._vectors(student, teacher, batch)
        means = [batch[e.name] for e in self._of_classes]
        return self(
            ours,
            theirs,
            params=params,
            labels=batch.get("labels"),
            where=batch["mask"],
            means=means[0] if means else None,
        )

    def rows(self, params, student, teacher, labels, where):
        if labels is None:
            raise ValueError("NormAndDirection points to classes; give labels=")
        if self.class_means == "training":
            params, means = params["projection"], params["means"]
            means = jnp.where(where[:, None], means.astype(teacher.dtype), 0)
            means = jax.lax.stop_gradient(means)
        else:
            means = _sums_of_classes(teacher, labels, where)
        student = fitted(params, student, teacher)
        # At one scale, the larger: the square of a length would not be finite, and it
        # is what the gradient of a quotient divides by.
        both = scaled(jnp.concatenate([student, teacher], axis=1))[0]
        student, teacher = jnp.split(both, 2, axis=1)
        size = jnp.maximum(norm(student), norm(teacher))
        reach = student / jnp.where(size > 0, size, 1)[:, None]
        losses = 1 - jnp.sum(reach * unit(means), axis=1)
        # What is no number has no direction, and would pass for a class without one.
        known = jnp.all(jnp.isfinite(means), axis=1)
        losses *= jnp.where(known, 1, jnp.nan).astype(losses.dtype)
        return nan_without_class(losses, labels, jnp.iinfo(labels.dtype).max)


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
) -> Float[np.ndarray, "num_classes e"]:
    """The mean feature of every class, float32; NaN of one without examples."""
    means = np.full((num_classes, features.shape[1]), np.nan, np.float32)
    for k in np.unique(labels):
        means[k] = features[labels == k].mean(axis=0, dtype=np.float64)
    return means
