"""The generalization gap of the Gibbs algorithm on a small finite family, exactly.

Hypotheses w and examples z are few. Of n examples S the algorithm draws

    P(w | S) = prior(w) exp(-beta L_S(w)) / normalizer
    L_S(w) = 1/n sum_i loss(w, z_i)

S matters through how often each example is in it, so that all samples can be counted.

    E gap = (I(W; S) + L(W; S)) / beta <= beta range^2 / (2 n)

with mutual and lautum information I and L, and the range of the losses: from gap^2 <=
range^2 I / (2 n) and I <= beta gap. Where the usual rate is 1 / sqrt(n), this is 1 / n.

Source: he2024information, which specializes its bounds to this algorithm; the equality
aminian2021exact, the bound raginsky2016stability.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Gibbs(NamedTuple):
    """What the algorithm does on average over all samples."""

    gap: float
    """Test loss less training loss."""
    training_loss: float
    mutual_information: float
    """I(W; S) = E KL(P(w | S) | P(w)), nats."""
    lautum_information: float
    """L(W; S) = E KL(P(w) | P(w | S)), nats."""
    bound: float
    """beta range^2 / (2 n), which is at least the gap."""


def gibbs(
    losses: Float[np.ndarray, "w z"],
    probabilities: Float[np.ndarray, "z"],
    *,
    num_examples: int,
    inverse_temperature: float,
    prior: Float[np.ndarray, "w"] | None = None,
) -> Gibbs:
    """Enumerates all samples of a size.

    Their number is that of ways to write n as a sum of as many terms as there are
    examples: 2,145 of 64 examples of three kinds.

    Args:
        losses: of every hypothesis on every example.
        probabilities: of the examples.
        num_examples: n.
        inverse_temperature: beta, positive.
        prior: probability of every hypothesis before any example; equal by default.

    Raises:
        ValueError: a number is out of range, or probabilities do not sum to 1.
    """
    num_hypotheses, num_kinds = losses.shape
    if prior is None:
        prior = np.full(num_hypotheses, 1 / num_hypotheses)
    if num_examples < 1:
        raise ValueError(f"num_examples must be at least 1, got {num_examples}")
    if not inverse_temperature > 0:
        raise ValueError(
            f"inverse_temperature must be positive, got {inverse_temperature}"
        )
    for name, values in (("probabilities", probabilities), ("prior", prior)):
        if not np.isclose(values.sum(), 1) or (values <= 0).any():
            raise ValueError(f"{name} must be positive and sum to 1, got {values}")
    counts = np.array([*_compositions(num_examples, num_kinds)])
    weights = np.exp(_log_multinomial(counts, probabilities))
    training = counts @ losses.T / num_examples
    scores = np.log(prior) - inverse_temperature * training
    log_posterior = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    posterior = np.exp(log_posterior)
    marginal = weights @ posterior
    log_ratio = log_posterior - np.log(marginal)
    training_loss = float(weights @ (posterior * training).sum(axis=1))
    spread = float(losses.max() - losses.min())
    return Gibbs(
        gap=float(marginal @ losses @ probabilities) - training_loss,
        training_loss=training_loss,
        mutual_information=float(weights @ (posterior * log_ratio).sum(axis=1)),
        lautum_information=float(weights @ -(log_ratio @ marginal)),
        bound=inverse_temperature * spread**2 / (2 * num_examples),
    )


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write `total` as an ordered sum of `parts` numbers from 0 on."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)


def _log_multinomial(
    counts: Int[np.ndarray, "s z"], probabilities: Float[np.ndarray, "z"]
) -> Float[np.ndarray, "s"]:
    log_factorial = np.array(
        [math.lgamma(k + 1) for k in range(counts.max(initial=0) + 1)]
    )
    total = math.lgamma(counts[0].sum() + 1)
    return total - log_factorial[counts].sum(axis=1) + counts @ np.log(probabilities)
