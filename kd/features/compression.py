"""Embedding compression: of the teacher only what the task needs."""

import dataclasses

import jax
from jaxtyping import Array, Float

from kd.features.distance_correlation import DistanceCorrelation
from kd.features.feature import VectorLoss
from kd.features.projection import linear, linear_parameters
from kd.objective import CrossEntropy, masked_mean
from kd.types import Batch, Metrics, Outputs, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingCompression(VectorLoss):
    """The student follows a learned, narrow projection of the teacher.

        c_i = t_i W + b
        losses_i = distance(s_i, stop(c_i)) - log softmax(c_i V + a)[y_i]

    The projection (W, b) and the classifier (V, a) on it learn from the labels only,
    the student from the distance only: neither sees the other's gradient. So the
    weight of this loss in a mix is that of the distance; that of the labels shares it,
    which matters little to Adam. Nats plus the unit of the distance. Couples the
    examples where the distance does. Reads `batch["labels"]`; examples whose label is
    hidden take no part in the distance either. The metric `labels` is the second term
    alone: how well the projection of the teacher tells the classes.

    Args:
        student_layer: which of the student's layers.
        teacher_layer: which of the teacher's.
        read: how positions become a vector: "mean", "first" or "all".
        width: of the projection, below the teacher's.
        distance: any loss of vectors.

    Source: ding2024embedding. Its code is not public, and the projection may be
    deeper there.
    """

    name = "embedding_compression"
    width: int = 64
    distance: VectorLoss = DistanceCorrelation()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")
        if any(e.of == "class" for e in self.distance.embeddings):
            raise ValueError(
                "distance takes the teacher's class means over the training set, and "
                "its projection has none; such as those of the batch it can take"
            )

    @property
    def reads_labels(self) -> bool:
        return True

    def parameters(self, key, student_width, teacher_width, num_classes):
        first, second, third = jax.random.split(key, 3)
        return {
            "compress": linear_parameters(first, teacher_width, self.width),
            "classify": linear_parameters(second, self.width, num_classes),
            "distance": self.distance.parameters(
                third, student_width, self.width, num_classes
            ),
        }

    def rows(self, params, student, teacher, labels, where):
        if labels is None:
            raise ValueError("EmbeddingCompression learns from labels; give labels=")
        compressed = linear(params["compress"], teacher)
        target = jax.lax.stop_gradient(compressed)
        distance = self.distance.rows(
            params["distance"], student, target, labels, where
        )
        predicted = linear(params["classify"], compressed)
        return distance + CrossEntropy()(predicted, labels, where=where)

    def per_example_with_metrics(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[Float[Array, "b"], Metrics]:
        losses = self.per_example(params, student, teacher, batch)
        _, theirs = self._vectors(student, teacher, batch)
        predicted = linear(params["classify"], linear(params["compress"], theirs))
        where = batch["mask"]
        taught = CrossEntropy()(predicted, batch["labels"], where=where)
        return losses, {"labels": jax.lax.stop_gradient(masked_mean(taught, where))}
