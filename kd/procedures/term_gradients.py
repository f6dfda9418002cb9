"""Gradients term by term: how hard each pulls at the student, and whether together.

One backward pass a term, through one forward pass. The gradients of K terms are one
tree with a leading axis of K.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kd.types import Metrics, Params

TermGradients = Literal["summed", "watched", "balanced"]
"""What becomes of the gradients of an objective's terms: "summed" for the gradient of
the objective; "watched" for that and, as metrics, the norm of every term's gradient for
the learners' parameters and the cosine of every pair; "balanced" for these and terms
rescaled so that these norms are as their weights, see `balance_factors`. The
objective's own parameters are not rescaled. The latter two take a backward pass, and
memory for a gradient, per term."""


def per_term(
    losses: Callable[[Params], tuple[Sequence[Float[Array, ""]], Metrics]],
    params: Params,
) -> tuple[Params, Metrics]:
    """The gradient of every loss, and what comes with them.

    Args:
        losses: of the parameters: K weighted losses, and metrics.
        params: where to differentiate.

    Returns:
        The gradients, leaves [K, ...], and the metrics.
    """

    def stacked(params):
        values, metrics = losses(params)
        return jnp.stack(values), metrics

    values, pull, metrics = jax.vjp(stacked, params, has_aux=True)
    (gradients,) = jax.vmap(pull)(jnp.eye(len(values), dtype=values.dtype))
    return gradients, metrics


def compared(gradients: Params, names: Sequence[str]) -> Metrics:
    """Norms and cosines of the terms' gradients.

    Args:
        gradients: of the weighted terms for the student's parameters, leaves [K, ...].
        names: of the K terms.

    Returns:
        `gradient/<name>`, the norm, and for every pair `cosine/<name>/<name>`, in [-1,
        1]; 0 where a gradient is.
    """
    norms = _norms(gradients)
    metrics = {
        f"gradient/{name}": norm for name, norm in zip(names, norms, strict=True)
    }
    for (i, a), (j, b) in combinations(enumerate(names), 2):
        first, second = (jax.tree.map(lambda x, k=k: x[k], gradients) for k in (i, j))
        size = norms[i] * norms[j]
        cosine = optax.tree.vdot(first, second) / jnp.where(size > 0, size, 1)
        metrics[f"cosine/{a}/{b}"] = jnp.clip(cosine, -1, 1)
    return metrics


def balance_factors(gradients: Params, weights: Sequence[Any]) -> Float[Array, "k"]:
    """Factors that make the norms of the terms' gradients proportional to the weights.

        f_k = |w_k| / |g_k|  sum_j |g_j| / sum_j |w_j|

    so that their sum stays what it is. Terms without a gradient take no part.

    Args:
        gradients: of the weighted terms for the student's parameters, leaves [K, ...].
        weights: of the terms.
    """
    norms = _norms(gradients)
    shares = jnp.where(norms > 0, jnp.abs(jnp.stack([*map(jnp.float32, weights)])), 0)
    total = jnp.sum(shares)
    wanted = shares * jnp.sum(norms) / jnp.where(total > 0, total, 1)
    return jnp.where(norms > 0, wanted / jnp.where(norms > 0, norms, 1), 1)


def summed(gradients: Params, factors: Float[Array, "k"] | None = None) -> Params:
    """The sum of the terms' gradients, each times its factor."""
    if factors is None:
        return jax.tree.map(lambda x: jnp.sum(x, axis=0), gradients)
    return jax.tree.map(lambda x: jnp.tensordot(factors, x, axes=1), gradients)


def _norms(gradients: Params) -> Float[Array, "k"]:
    return jax.vmap(optax.tree.norm)(gradients)
