"""Contrastive distillation: recognising one's own teacher among those of a batch."""

import dataclasses

import jax
import jax.numpy as jnp

from kd.features.feature import VectorLoss
from kd.features.norms import gram, unit
from kd.features.projection import linear, linear_parameters


@dataclasses.dataclass(frozen=True, kw_only=True)
class CRD(VectorLoss):
    """Noise-contrastive classification of pairs as of one example or of two.

    Student and teacher are projected linearly to the same width and to length 1: u_i
    and v_i. With N = m - 1 other examples in the batch,

        h_ij = exp(<u_i, v_j> / temperature) / (exp(<u_i, v_j> / temperature) + N)
        losses_i = -log h_ii - sum_{j != i} log(1 - h_ij)

    Nats per example. Both projections are learned; the teacher's features are
    constant all the same. Couples the examples. An example alone gives 0.

    Args:
        student_layer: which of the student's layers.
        teacher_layer: which of the teacher's.
        read: how positions become a vector: "mean", "first" or "all".
        width: of the projections.
        temperature: of the inner products.

    Source: tian2020crd, section 3. Negatives here are the other examples of the batch.
    The authors draw 16384 from memory banks of all training examples and add the loss
    with the parts exchanged; a bank is state without a gradient, which a loss does not
    have.
    """

    name = "crd"
    width: int = 128
    temperature: float = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")

    def parameters(self, key, student_width, teacher_width, num_classes):
        del num_classes
        ours, theirs = jax.random.split(key)
        return {
            "student": linear_parameters(ours, student_width, self.width),
            "teacher": linear_parameters(theirs, teacher_width, self.width),
        }

    def rows(self, params, student, teacher, labels, where):
        del labels
        ours = unit(linear(params["student"], student))
        theirs = unit(linear(params["teacher"], teacher))
        negatives = jnp.sum(where) - 1
        scores = gram(ours, theirs) / self.temperature
        scores -= jnp.log(jnp.maximum(negatives, 1)).astype(scores.dtype)
        same = jnp.eye(len(scores), dtype=bool)
        losses = jax.nn.softplus(jnp.where(same, -scores, scores))
        total = jnp.sum(losses, axis=1, where=where[None])
        return jnp.where(negatives > 0, total, 0)
