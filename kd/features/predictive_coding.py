"""Contrastive predictive coding: recognising the second view of one's own example.

Losses of two views of every example, without labels and without a teacher. A critic of
pairs is learned with the encoder of the views,

    f(x, y) = -slope |x A + y B + b|

large where two vectors belong together, and as steep as its slope at most where [A; B]
has no singular value above 1. To keep it so is the procedure's business,
`kd.procedures.contrastive`.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from kd.features.layers import lifted
from kd.features.norms import norm, over_rows
from kd.features.projection import linear_parameters
from kd.objective import Loss
from kd.types import Batch, Outputs, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictiveCoding(Loss):
    """A loss of the scores f(x_i, y_j) that the critic gives pairs of first and second.

    x and y are what the encoder gives for the two views; gradients flow into both.
    Subclasses are frozen dataclasses that define `rows`.

    Args:
        width: of what the two sides are mapped to.
        slope: of the critic.
    """

    width: int = 64
    slope: float = 1.0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")
        if not self.slope > 0:
            raise ValueError(f"slope must be positive, got {self.slope}")

    @property
    def needs_teacher(self) -> bool:
        return False

    @property
    def reads_classes(self) -> bool:
        return False

    @property
    def compares_views(self) -> bool:
        return True

    def problem(self, num_rows: int) -> str:
        if num_rows < 2:
            return f"{self.name} tells examples of a batch apart, and it has only one"
        return ""

    def init(
        self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None
    ) -> Params:
        assert teacher is not None  # the second view
        ours, theirs = (x.logits.shape[-1] for x in (student, teacher))
        return linear_parameters(key, ours + theirs, self.width)

    def scores(
        self, params: Params, first: Float[Array, "b d"], second: Float[Array, "b d"]
    ) -> Float[Array, "b"]:
        """f(x_i, y_i) of pairs of rows."""
        ours, theirs = _sides(params, lifted(first), lifted(second))
        return -self.slope * norm(ours + theirs)

    def __call__(
        self,
        first: Float[Array, "b d"],
        second: Float[Array, "b d"],
        *,
        params: Params,
        where: Bool[Array, "b"] | None = None,
    ) -> Float[Array, "b"]:
        """Loss of every example, nats; 0 where `where` is False."""
        kept = jnp.ones(len(first), bool) if where is None else where
        first, second = (
            jnp.where(kept[:, None], lifted(x), 0) for x in (first, second)
        )
        ours, theirs = _sides(params, first, second)
        # Of all pairs, a few rows at a time.
        distances = over_rows(lambda row: norm(row + theirs), ours)
        return jnp.where(kept, self.rows(-self.slope * distances, kept), 0)

    @abc.abstractmethod
    def rows(
        self, scores: Float[Array, "b b"], where: Bool[Array, "b"]
    ) -> Float[Array, "b"]:
        """The formula, of the scores of all pairs."""

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        assert teacher is not None  # the second view
        return self(student.logits, teacher.logits, params=params, where=batch["mask"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfoNCE(PredictiveCoding):
    """The negated bound on the mutual information of two views, the KL form.

        losses_i = log(1/n sum_j exp f(x_i, y_j)) - f(x_i, y_i)

    over the n examples of a batch, the own second view among them. Nats, and never
    below -log n: a batch of 64 tells no more than 4.2 nats of a dependence that may be
    20.

    Source: oord2018representation, equation 4, less log n.
    """

    name = "info_nce"

    def rows(self, scores, where):
        return _log_mean_exp(scores, where[None] & where[:, None]) - jnp.diagonal(
            scores
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WassersteinPredictiveCoding(PredictiveCoding):
    """The negated bound on the Wasserstein dependence of two views.

        losses_i = log(1/(n - 1) sum_{j != i} exp f(x_i, y_j)) - f(x_i, y_i)

    over the other examples of a batch alone, which are draws from the product of the
    marginals. What bounds it is f: at least -s W_1(joint, product of marginals) where
    f is s-Lipschitz, by Jensen's inequality and Kantorovich's duality; without such a
    limit it has no bound. 0 for an example alone.

    Source: ozair2019wasserstein, whose objective has a sum where this has a mean: log
    (n - 1) lies between. That the sum leaves out the pair of the joint is read off
    its formula, in which the others are drawn from p(y); no code of the authors is
    public. The critic is this project's: of the inner product <x A, y B>, or of a
    layer of ReLUs as in `WassersteinDependency`, InfoNCE learned less from grids of
    digits, or nothing.
    """

    name = "wpc"

    def rows(self, scores, where):
        others = where[None] & where[:, None] & ~jnp.eye(len(scores), dtype=bool)
        losses = _log_mean_exp(scores, others) - jnp.diagonal(scores)
        return jnp.where(jnp.any(others, axis=1), losses, 0)


def _sides(
    params: Params, first: Float[Array, "b d"], second: Float[Array, "b e"]
) -> tuple[Float[Array, "b w"], Float[Array, "b w"]]:
    """x A + b and y B, which the critic adds up."""
    ours, theirs = jnp.split(params["kernel"], [first.shape[1]])
    return first @ ours + params["bias"], second @ theirs


def _log_mean_exp(
    values: Float[Array, "b b"], where: Bool[Array, "b b"]
) -> Float[Array, "b"]:
    """Of every row over the kept columns; 0 where there is none."""
    count = jnp.sum(where, axis=1)
    # A row of nothing but -inf has no gradient that is a number.
    some = (count > 0)[:, None]
    kept = jnp.where(some, jnp.where(where, values, -jnp.inf), 0)
    total = jax.nn.logsumexp(kept, axis=1)
    mean = total - jnp.log(jnp.maximum(count, 1)).astype(values.dtype)
    return jnp.where(some[:, 0], mean, 0)
