"""Weights that are set to 0 as training goes on, the smallest of every layer."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from kd.types import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruning:
    """Gradual magnitude pruning.

        s_t = share (1 - (1 - (t - t_0) / (t_1 - t_0))^3)     for t_0 <= t <= t_1

    After step t_0, every `every` steps from there on, and after step t_1 the
    round(s_t n) of the n weights of each kernel that are smallest in absolute value are
    set to 0, and stay 0. Kernels are those of dense layers and convolutions;
    embeddings, biases and norms are not pruned, nor is what is frozen.

    Attributes:
        share: of every layer's weights in the end, in [0, 1); 0 for no pruning.
        begin: t_0 as a share of the run's steps, in [0, 1).
        end: t_1 likewise, in (begin, 1].
        every: steps between prunings.

    Source: zhu2018prune, equation 1, from an initial sparsity of 0.
    """

    share: float = 0.0
    begin: float = 0.1
    end: float = 0.7
    every: int = 50

    def __post_init__(self) -> None:
        wrong = []
        if not 0 <= self.share < 1:
            wrong.append(
                f"share is of every layer's weights, in [0, 1), got {self.share}"
            )
        if not 0 <= self.begin < self.end <= 1:
            wrong.append(
                "begin and end are shares of the steps, 0 <= begin < end <= 1, got "
                f"{self.begin} and {self.end}"
            )
        if self.every < 1:
            wrong.append(f"every must be at least 1, got {self.every}")
        if wrong:
            raise ValueError("; ".join(wrong))

    def build(
        self, num_steps: int, prunes: Callable[[Any], bool]
    ) -> optax.GradientTransformation:
        """The transformation of the updates that are about to be applied.

        Args:
            num_steps: length of the run.
            prunes: whether the kernel at a path of the parameters is pruned.
        """
        first = math.floor(self.begin * num_steps)
        last = max(math.ceil(self.end * num_steps) - 1, first)

        def kernels(params: Params) -> dict[int, Array]:
            """By their places among the leaves."""
            return {
                place: leaf
                for place, (path, leaf) in enumerate(
                    jax.tree_util.tree_leaves_with_path(params)
                )
                if is_kernel(path) and prunes(path)
            }

        def init(params: Params) -> PruningState:
            kept = tuple(jnp.ones(x.shape, bool) for x in kernels(params).values())
            return PruningState(jnp.int32(0), kept, jnp.float32(0))

        def update(
            updates: Params, state: Any, params: Params | None = None
        ) -> tuple[Params, PruningState]:
            before = kernels(params)
            leaves, structure = jax.tree.flatten(updates)
            after = [weights + leaves[place] for place, weights in before.items()]
            step = state.count
            progress = jnp.clip((step - first) / max(last - first, 1), 0, 1)
            share = self.share * (1 - (1 - progress) ** 3)
            share = jnp.where(step >= last, self.share, share)
            due = ((step - first) % self.every == 0) | (step == last)
            kept = jax.lax.cond(
                (first <= step) & (step <= last) & due,
                lambda: tuple(map(_largest, after, state.kept, [share] * len(after))),
                lambda: state.kept,
            )
            for (place, weights), keep in zip(before.items(), kept, strict=True):
                leaves[place] = jnp.where(keep, leaves[place], -weights)
            num = sum(keep.size for keep in kept)
            zeros = sum(keep.size - jnp.sum(keep) for keep in kept)
            sparsity = jnp.float32(zeros / max(num, 1))
            state = PruningState(step + 1, kept, sparsity)
            return jax.tree.unflatten(structure, leaves), state

        return optax.GradientTransformation(init, update)


class PruningState(NamedTuple):
    """What pruning remembers."""

    count: Int[Array, ""]
    """Steps done."""
    kept: tuple[Bool[Array, "..."], ...]
    """Of every kernel, where it is not pruned."""
    sparsity: Float[Array, ""]
    """Share of the weights of all kernels that are pruned: a metric of the step."""


def is_kernel(path: Any) -> bool:
    """Whether the path of a parameter is that of a layer's weights."""
    return bool(path) and getattr(path[-1], "key", None) == "kernel"


def _largest(
    weights: Float[Array, "..."], kept: Bool[Array, "..."], share: Float[Array, ""]
) -> Bool[Array, "..."]:
    """All but the share of the weights that is smallest; what was pruned stays so."""
    size = jnp.where(kept, jnp.abs(weights), -1).ravel()
    # The place of each in the order of sizes, the first ones first among equals.
    place = jnp.argsort(jnp.argsort(size))
    return (place >= jnp.round(share * size.size)).reshape(weights.shape)
