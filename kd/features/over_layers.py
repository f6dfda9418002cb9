"""One loss of hidden states over several pairs of layers."""

import dataclasses

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from kd.features.feature import FeatureLoss
from kd.objective import Loss
from kd.types import Batch, Embedding, Metrics, Outputs, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverLayers(Loss):
    """A weighted sum of a loss over pairs of layers of student and teacher.

        losses_i = sum_k w_k loss(student layer a_k, teacher layer b_k)_i

    Every pair has its own learnable parameters. The name is the loss's with `_layers`,
    and what the loss's metrics are of pair k is named `<metric>_<k>`.

    Args:
        loss: of one pair; its own layers are not read.
        student_layers: a_1, ..., a_K; 0 is the first hidden state, -1 the last.
        teacher_layers: b_1, ..., b_K.
        weights: w_1, ..., w_K; () for the mean, 1/K each.

    Raises:
        ValueError: the layers are not pairs, or the weights not one for each.
    """

    loss: FeatureLoss
    student_layers: tuple[int, ...]
    teacher_layers: tuple[int, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.student_layers or len(self.student_layers) != len(
            self.teacher_layers
        ):
            raise ValueError(
                "student_layers and teacher_layers are pairs, at least one, got "
                f"{self.student_layers} and {self.teacher_layers}"
            )
        if self.weights and len(self.weights) != len(self.student_layers):
            raise ValueError(
                f"weights are {len(self.weights)} for {len(self.student_layers)} pairs "
                "of layers"
            )
        object.__setattr__(self, "name", f"{self.loss.name}_layers")

    @property
    def reads_hidden(self) -> bool:
        return True

    @property
    def reads_logits(self) -> bool:
        return self.loss.reads_logits

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        return tuple(e for loss in self._losses() for e in loss.embeddings)

    @property
    def reads_labels(self) -> bool:
        return self.loss.reads_labels

    def init(
        self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None
    ) -> Params:
        losses = self._losses()
        keys = jax.random.split(key, len(losses))
        return [
            loss.init(key, student, teacher)
            for key, loss in zip(keys, losses, strict=True)
        ]

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        return self.per_example_with_metrics(params, student, teacher, batch)[0]

    def per_example_with_metrics(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[Float[Array, "b"], Metrics]:
        losses = self._losses()
        weights = self.weights or [1 / len(losses)] * len(losses)
        found, metrics = [], {}
        for k, (weight, own, loss) in enumerate(
            zip(weights, params, losses, strict=True), start=1
        ):
            values, watched = loss.per_example_with_metrics(
                own, student, teacher, batch
            )
            found.append(weight * values)
            metrics |= {f"{name}_{k}": number for name, number in watched.items()}
        return sum(found[1:], found[0]), metrics

    def _losses(self) -> list[FeatureLoss]:
        pairs = zip(self.student_layers, self.teacher_layers, strict=True)
        return [
            dataclasses.replace(self.loss, student_layer=ours, teacher_layer=theirs)
            for ours, theirs in pairs
        ]


def skip(
    num_student_layers: int, num_teacher_layers: int
) -> dict[str, tuple[int, ...]]:
    """Every layer of the student with one of the teacher's, evenly spread.

    Layer k of the student goes with layer k L / K of the teacher, rounded, of L and K
    layers: of 12 for 6 with 2, 4, ..., 12.

    Returns:
        The arguments `student_layers` and `teacher_layers` of `OverLayers`.

    Raises:
        ValueError: one of them has no layers.
    """
    if num_student_layers < 1 or num_teacher_layers < 1:
        raise ValueError(
            "skip needs at least 1 layer on both sides, got "
            f"{num_student_layers} and {num_teacher_layers}"
        )
    ours = tuple(range(1, num_student_layers + 1))
    step = num_teacher_layers / num_student_layers
    theirs = tuple(max(1, round(k * step)) for k in ours)
    return {"student_layers": ours, "teacher_layers": theirs}
