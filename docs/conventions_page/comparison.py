"""One pair of logits, and what is said of a published code.

Every line of the page of conventions is a `Convention`, whose two sides are computed
apart: `computes` from the code's own formula, `here` by the losses of this project.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from docs.conventions_page.published import Pair
from kd.divergences import PerToken, SoftCrossEntropy
from kd.objective import Loss, Mix
from kd.types import Outputs

# Two sequences of four tokens over five classes; the last token is padding.
STUDENT = (
    ((1.2, -0.4, 0.3, 0.9, -1.1), (0.2, 1.7, -0.6, 0.1, 0.8),
     (-1.3, 0.5, 2.1, -0.2, 0.4), (0.7, 0.6, -0.9, 1.4, -0.3)),
    ((-0.8, 1.1, 0.2, 0.5, 1.9), (2.3, -0.7, 0.4, -1.2, 0.6),
     (0.1, -0.5, 1.0, 1.8, -1.4), (0.9, 0.3, -0.1, 0.8, 0.2)),
)  # fmt: skip
TEACHER = (
    ((2.6, -1.0, 0.1, 0.4, -0.7), (-0.9, 3.2, 0.3, -0.2, 1.1),
     (0.6, -0.8, 1.5, 0.9, -1.6), (1.3, -0.4, -1.7, 3.0, 0.5)),
    ((-1.5, 0.2, 1.2, -0.6, 2.4), (0.8, 1.6, -1.1, 0.3, -0.5),
     (-0.3, 0.7, 0.0, 2.8, -1.9), (-0.6, 1.0, 2.2, -1.3, 0.4)),
)  # fmt: skip
COUNTED = ((True, True, True, True), (True, True, True, False))
LABELS = ((0, 1, 2, 3), (4, 1, 3, 2))

# What codes average over.
TOKENS = "tokens that count"
EVERYWHERE = "all tokens, padding too"
EXAMPLES = "examples"
SEQUENCES = "sequences, of their tokens' means"


class Convention(NamedTuple):
    """One line of the page: a loss of a published code."""

    code: str
    formula: str
    """For one token or example; p is the student, q the teacher."""
    squared: str
    """Whether the code multiplies by temperature^2; "" if it has no temperature."""
    over: str
    """What it is a mean or a sum of."""
    computes: Callable[[Pair], jax.Array]
    here: Loss | Mix | None
    """What equals it here, in the mean over `positions`; None if nothing does."""
    note: str = ""
    positions: Literal["counted", "all", "padding", "sequences"] = "counted"
    entropy: float = 0.0
    """How much of the teacher's entropy (temperature 1) it has on top of `here`."""


class Family(NamedTuple):
    """One table of the page."""

    title: str
    note: str
    conventions: tuple[Convention, ...]


def fixed_pair() -> Pair:
    """The pair of logits on the page; in float64 where JAX may."""
    student, teacher = jnp.asarray(STUDENT), jnp.asarray(TEACHER)
    return Pair(student, teacher, np.array(COUNTED), np.array(LABELS))


def value_here(convention: Convention, pair: Pair) -> jax.Array:
    """What the page says equals `convention.computes(pair)`."""
    assert convention.here is not None
    value = value_of(convention.here, pair, convention.positions)
    if convention.entropy:
        entropy_only = SoftCrossEntropy()
        of_teacher = pair._replace(student=pair.teacher)
        value += convention.entropy * value_of(entropy_only, of_teacher)
    return value


def value_of(
    loss: Loss | Mix,
    pair: Pair,
    positions: Literal["counted", "all", "padding", "sequences"] = "counted",
) -> jax.Array:
    """The mean of a loss of this project over tokens of a pair."""
    if isinstance(loss, Mix):
        total = jnp.zeros(())
        for term in loss.terms:
            assert not callable(term.weight)
            total += term.weight * value_of(term.loss, pair, positions)
        return total
    counted = {"all": np.ones_like(pair.counted), "padding": ~pair.counted}
    batch = {
        "mask": jnp.ones(len(pair.student), bool),
        "prediction_mask": jnp.asarray(counted.get(positions, pair.counted)),
        "labels": jnp.asarray(pair.labels),
    }
    average = "sequences" if positions == "sequences" else "tokens"
    outputs = Outputs(pair.student), Outputs(pair.teacher)
    return jnp.mean(PerToken(loss, average=average).per_example((), *outputs, batch))
