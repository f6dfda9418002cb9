"""Comparative distillation: the difference between examples, not the examples."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kd.divergences.divergence import Divergence, kept_rows
from kd.divergences.softened import Rescaled, relative_entropy
from kd.objective import TargetLoss, nan_without_class


@dataclasses.dataclass(frozen=True)
class ComparativeKL(Rescaled, Divergence):
    """Forward KL between the differences of two groups of examples.

        d(z)_i = mean of z over i, ..., i + positives - 1
                 - mean of z over the `negatives` examples that follow
        losses_i = temperature^2 KL(softmax(d(t)_i / temperature)
                                    || softmax(d(s)_i / temperature))

    where the examples of a batch, in its order, form a ring. Nats per comparison.
    Batches are shuffled, so the groups are drawn at random. Coupled: each example
    is part of positives + negatives comparisons. A class that one logit of a
    comparison rules out (-inf) is left out of it.

    Args:
        positives: size of the first group, at least 1.
        negatives: size of the second group, at least 1.

    Source: wilf2023comparative. The authors' code draws groups over the
    whole data set from teacher outputs that were stored once, and adds the same
    loss between the student's differences and those of the one-hot labels, with
    weight 1: `ComparativeLabels`.
    """

    name = "comparative_kl"
    temperature: float = 4.0
    positives: int = 2
    negatives: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.positives, self.negatives) < 1:
            raise ValueError(
                "positives and negatives must be at least 1, got "
                f"{self.positives} and {self.negatives}"
            )

    def rows(self, student, teacher, where):
        members = _ring(where, student, self.positives + self.negatives)
        known = (student > -jnp.inf) & (teacher > -jnp.inf)
        compared = jnp.all(known[members], axis=1)
        # Where nothing can be compared, 0 with 0.
        compared |= ~jnp.any(compared, axis=1, keepdims=True)
        log_p, log_q = (
            self.soften(jnp.where(compared, self._difference(logits), -jnp.inf))
            for logits in (
                jnp.where(known, student, 0)[members],
                jnp.where(known, teacher, 0)[members],
            )
        )
        return self.factor * relative_entropy(log_q, log_p)

    def _difference(self, groups: Array) -> Array:
        first, second = groups[:, : self.positives], groups[:, self.positives :]
        return jnp.mean(first, axis=1) - jnp.mean(second, axis=1)


@dataclasses.dataclass(frozen=True)
class ComparativeLabels(Rescaled, TargetLoss):
    """`ComparativeKL` of the student to the one-hot labels, as if logits.

    Nats per comparison. Coupled likewise; its groups are of the examples whose label
    is not hidden. In the least loss the differences of the student's logits are those
    of the one-hot vectors: logits of the right classes stand 1 above the others.

    Args:
        positives: size of the first group, at least 1.
        negatives: size of the second group, at least 1.

    Source: wilf2023comparative, the authors' code. A term of labels of a mix; what
    teachers say is compared by `ComparativeKL`.
    """

    name = "comparative_labels"
    temperature: float = 4.0
    positives: int = 2
    negatives: int = 1

    def __post_init__(self) -> None:
        self._comparison()

    def _comparison(self) -> ComparativeKL:
        return ComparativeKL(
            self.temperature, self.temperature_squared, self.positives, self.negatives
        )

    def __call__(
        self, student: Float[Array, "b v"], labels: Int[Array, "b"], *, where=None
    ) -> Float[Array, "b"]:
        if where is not None:
            labels = jnp.where(where, labels, 0)
        num_classes = student.shape[-1]
        one_hot = jax.nn.one_hot(labels, num_classes, dtype=student.dtype)
        losses = self._comparison()(student, one_hot, where=where)
        return nan_without_class(losses, labels, num_classes)


def _ring(where: Bool[Array, "b"] | None, like: Array, size: int) -> Int[Array, "b g"]:
    """Rows of the example itself and of the `size - 1` kept ones after it."""
    kept = kept_rows(where, like)
    num_rows = jnp.maximum(jnp.sum(kept).astype(int), 1)
    kept_first = jnp.argsort(kept == 0, stable=True)
    position = jnp.cumsum(kept).astype(int) - 1
    return kept_first[(position[:, None] + jnp.arange(size)) % num_rows]
