"""The hardest of several views."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from kd.types import Batch
from kd.views.mixing import CutMix
from kd.views.view import Ask, Respondent, View, rebalanced

if TYPE_CHECKING:
    from kd.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Pick(View):
    """Of several views of a batch the examples whose prediction is most uncertain.

        kept = the n of `num_views` n viewed examples with the largest entropies
        entropy_i = -sum_v p_iv log p_iv,  p = softmax(logits), no temperature

    where n is the number of examples of the batch that are not masked. They are kept in
    the order of their entropies, the largest first.

    Args:
        view: drawn `num_views` times; CutMixPick is `Pick(CutMix())`.
        num_views: of the batch, at least 1.
        by: whose prediction: the "student"'s at this step, or the "teacher"'s.
        entropy_of: "viewed" for the prediction on what is picked, "clean" for that on
            the examples as they were, as in R2KD's code; where a view mixes, the
            example i of x'_i.

    Source: wang2022augmentation, "S. ent." and "T. ent." with 2 views. kim2024r2kd
    takes the teacher's: its code draws one view and keeps 64 examples of a batch of 64,
    all of them, and computes the entropy on clean images.
    """

    view: View = CutMix()
    num_views: int = 2
    by: Respondent = "student"
    entropy_of: Literal["viewed", "clean"] = "viewed"

    def __post_init__(self) -> None:
        if self.num_views < 1:
            raise ValueError(f"num_views must be at least 1, got {self.num_views}")
        if self.view.beside is not None:
            raise ValueError(
                "Pick chooses what stands beside the batch: Beside(Pick(...))"
            )

    @property
    def changes_answers(self) -> bool:
        return self.view.changes_answers

    @property
    def mixes(self) -> bool:
        return self.view.mixes

    @property
    def inner(self) -> tuple[View, ...]:
        return (self.view,)

    def problems(self, experiment: "Experiment") -> Iterator[str]:
        yield from super().problems(experiment)
        if self.by == "teacher" and not experiment.asks_teachers:
            yield (
                "Pick(by='teacher') asks a teacher, and training needs none; "
                "by='student' asks the student"
            )
        if not experiment.data.target.has_classes:
            yield (
                f"{experiment.data.name} asks for a number, and Pick compares the "
                "entropies of predicted classes"
            )

    def __call__(
        self, key: PRNGKeyArray, batch: Batch, ask: Ask | None = None
    ) -> dict[str, Any]:
        if ask is None:
            raise ValueError("Pick needs what the networks say: give ask=")
        views = [
            self.view(key, batch, ask) for key in jax.random.split(key, self.num_views)
        ]
        pool = {
            name: jnp.concatenate([view[name] for view in views]) for name in views[0]
        }
        if self.entropy_of == "viewed":
            uncertainty = entropy(ask(self.by, pool))
        else:
            uncertainty = jnp.tile(entropy(ask(self.by, batch)), self.num_views)
        order = jnp.argsort(jnp.where(pool["mask"], -uncertainty, jnp.inf))
        # Masked rows hold something of the pool, whatever it is, and stay masked.
        mask = batch["mask"]
        picked = order[jnp.maximum(jnp.cumsum(mask) - 1, 0)]
        kept = {name: rows[picked] for name, rows in pool.items()} | {"mask": mask}
        return rebalanced(kept) if "label_weight" in batch else kept


def entropy(logits: Float[Array, "b v"]) -> Float[Array, "b"]:
    """Of the predicted distributions, in nats."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    probs = jnp.exp(log_probs)
    return -jnp.sum(jnp.where(probs > 0, probs * log_probs, 0), axis=-1)
