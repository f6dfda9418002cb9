"""Representations from two views: one encoder sees both, a critic tells pairs apart.

The encoder is the student, its logits are the representation. Nobody teaches, and no
label is read: the second view stands where a teacher's answer would, and learns too.
"""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kd.features.contracting import contracted
from kd.features.norms import norm
from kd.features.predictive_coding import PredictiveCoding
from kd.models.mlp import MLP
from kd.objective import masked_mean
from kd.procedures.procedure import Procedure, Setting, shapes_of
from kd.procedures.step import gradient_step
from kd.types import Training, TrainState

if TYPE_CHECKING:
    from kd.experiment import Experiment

Lipschitz = Literal["none", "penalty", "exact"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrastive(Procedure):
    """Trains an encoder, and the critic of every term, on pairs of views.

    A critic scores a pair of views (x, y) by f(e(x), e(y)), e being the encoder. How
    steep that may be, as a function of the two views together and in their Euclidean
    distance, is

    * "none": whatever comes out, as for mutual information;
    * "penalty": near `slope` of the loss, by

        penalty E (|grad_(x, y) f(e(x), e(y))| / slope - 1)^2

      at x of an example and y between the two second views of it and of another;
    * "exact": nowhere above `slope`: after every step no matrix of encoder and critic
      has a singular value above 1. For an MLP without dropout.

    Attributes:
        lipschitz: see above.
        penalty: its weight, times that of the term.

    Source: ozair2019wasserstein, whose critics have the penalty of
    gulrajani2017improved. At which points is inferred; "exact" is this project's.
    """

    gives_views = True

    lipschitz: Lipschitz = "none"
    penalty: float = 10.0

    def __post_init__(self) -> None:
        if not self.penalty > 0:
            raise ValueError(f"penalty must be positive, got {self.penalty}")

    def problems(self, experiment: "Experiment") -> Iterator[str]:
        if experiment.data.num_views != 2:
            yield (
                f"{experiment.data.name} gives one view of an example, and Contrastive "
                "needs two, such as those of kd.data.digit_grids"
            )
        others = [
            term.loss.name
            for term in experiment.objective.terms
            if not isinstance(term.loss, PredictiveCoding)
        ]
        if others:
            yield (
                f"{', '.join(others)} does not compare two views; with Contrastive it "
                "is InfoNCE or WassersteinPredictiveCoding"
            )
        if experiment.view is not None:
            yield "Contrastive compares the two views of its data, and takes no other"
        if experiment.teachers:
            yield "Contrastive asks no teacher, and there is one: set teachers=none"
        if self.lipschitz == "exact" and experiment.student is not None:
            student = experiment.student
            if not isinstance(student, MLP) or student.dropout:
                yield "lipschitz=exact needs a student that is an MLP without dropout"

    def build(self, setting: Setting) -> Training:
        encoder, objective = setting.learners["student"], setting.objective
        losses = [
            term.loss
            for term in objective.terms
            if isinstance(term.loss, PredictiveCoding)  # as `problems` has it
        ]
        if self.lipschitz == "exact":
            optimizer = optax.chain(setting.optimizer, _contracting_updates())
            setting = setting._replace(optimizer=optimizer)

        def init(key, learners, teacher_params, batch):
            del teacher_params
            key, objective_key = jax.random.split(key)
            seen = shapes_of(encoder, learners["student"], batch)
            params = {
                "student": learners["student"],
                "objective": objective.init(objective_key, seen, seen),
            }
            if self.lipschitz == "exact":
                params = contracted(params)
            return TrainState(
                step=jnp.int32(0),
                params=params,
                opt_state=setting.optimizer.init(params),
                key=key,
            )

        def encode(params, batch, view, key):
            return encoder.apply(params["student"], {**batch, "inputs": view}, key)

        def slopes(loss, params, batch, key):
            """|grad f| at a second view between one's own and another's, [b]."""
            share_key, *keys = jax.random.split(key, 3)
            own, others = batch["others"], jnp.roll(batch["others"], 1, axis=0)
            shape = (len(own),) + (1,) * (own.ndim - 1)
            share = jax.random.uniform(share_key, shape, own.dtype)

            def total(views):
                first, second = (
                    encode(params, batch, view, key).logits
                    for view, key in zip(views, keys, strict=True)
                )
                critic = params["objective"][loss.name]
                return jnp.sum(loss.scores(critic, first, second))

            views = batch["inputs"], own + share * (others - own)
            return norm(_flat(*jax.grad(total)(views)))

        def terms(params, teacher_params, batch, key, step):
            del teacher_params
            first, second = (
                encode(params, batch, batch[name], jax.random.fold_in(key, i))
                for i, name in enumerate(("inputs", "others"))
            )
            values, metrics = objective.weighted(
                params["objective"], first, second, batch, step
            )
            if self.lipschitz != "penalty":
                return values, metrics
            for i, weight in enumerate(objective.weights(step)):
                loss, key_of_loss = losses[i], jax.random.fold_in(key, 2 + i)
                steep = slopes(loss, params, batch, key_of_loss)
                excess = jnp.square(steep / loss.slope - 1)
                penalty = masked_mean(excess, batch["mask"])
                values = [*values, weight * self.penalty * penalty]
                metrics |= {
                    "loss": metrics["loss"] + values[-1],
                    f"loss/{loss.name}_penalty": penalty,
                    f"{loss.name}/slope": masked_mean(steep, batch["mask"]),
                }
            return values, metrics

        names = objective.names
        if self.lipschitz == "penalty":
            names = [*names, *(f"{name}_penalty" for name in names)]

        def weights(step):
            own = objective.weights(step)
            return [*own, *(w * self.penalty for w in own)][: len(names)]

        return Training(
            init, gradient_step(terms, setting, names=names, weights=weights)
        )


def _flat(*views: Float[Array, "b ..."]) -> Float[Array, "b d"]:
    return jnp.concatenate([view.reshape(len(view), -1) for view in views], axis=1)


def _contracting_updates() -> optax.GradientTransformation:
    """Last of a chain: after the update no matrix has a singular value above 1."""

    def update(updates, state, params=None):
        assert params is not None
        wanted = contracted(optax.apply_updates(params, updates))
        return jax.tree.map(jnp.subtract, wanted, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
