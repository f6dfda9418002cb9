"""A view beside the batch itself, both with their own terms."""

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from kd.types import Batch
from kd.views.view import Ask, View

if TYPE_CHECKING:
    from kd.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Beside(View):
    """The batch as it is, and a view of it.

        loss = objective(x) + weight * objective(x')

    and without `labels` the terms of the second that read labels are 0: the view is
    labelled by the teacher alone. So the objective

        gamma CrossEntropy() + alpha KL()

    becomes gamma CE(x, y) + alpha KL(x) + weight alpha KL(x'). A step takes forward and
    backward passes for both, of batches of the same shape: nothing couples x and x',
    and parts and devices hold rows of both. Metrics of the view's terms are
    `loss/view/<name>`.

    Args:
        view: of the batch.
        weight: of the objective on it.
        labels: whether its labels count there, too.

    Source: wang2022augmentation, code: gamma = 0.1, alpha = 0.9, weight 1, without
    labels, which wang2021understanding found to mislead; its option `lw_mix` has a
    weight for every term. kim2024r2kd, code: weight 1, without labels.
    """

    view: View
    weight: float = 1.0
    labels: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight must be at least 0 and finite, got {self.weight}")
        if self.view.beside is not None:
            raise ValueError("the view beside a batch cannot stand beside it itself")

    @property
    def changes_answers(self) -> bool:
        return self.view.changes_answers

    @property
    def keeps_answers(self) -> bool:
        return True

    @property
    def mixes(self) -> bool:
        return self.view.mixes

    @property
    def beside(self) -> float | None:
        return self.weight

    @property
    def inner(self) -> tuple[View, ...]:
        return (self.view,)

    def problems(self, experiment: "Experiment") -> Iterator[str]:
        yield from super().problems(experiment)
        if self.labels:
            return
        losses = [term.loss for term in experiment.objective.terms]
        taught = [x.name for x in losses if x.reads_labels and x.needs_teacher]
        if taught:
            yield (
                f"Beside leaves labels out of the view, and {', '.join(taught)} reads "
                "them beside the teacher; view.labels=true lets them count"
            )
        elif all(loss.reads_labels for loss in losses):
            yield (
                "Beside leaves labels out of the view, and every term of the objective "
                "reads them: nothing would be learnt from it; view.labels=true lets "
                "them count"
            )

    def __call__(
        self, key: PRNGKeyArray, batch: Batch, ask: Ask | None = None
    ) -> dict[str, Any]:
        viewed = self.view(key, batch, ask)
        if not self.labels and "labels" in batch:
            viewed["label_weight"] = jnp.zeros(batch["mask"].shape)
            viewed.pop("mixed_labels", None)
            viewed.pop("mixed_label_weight", None)
        return {**batch, "view": viewed}
