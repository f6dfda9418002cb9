"""What a loss sees of a hidden state: one vector, or one per position, an example.

The one place that knows the shapes of `Outputs.hidden`. All become positions,

    [b, n, d]     tokens: those where batch["token_mask"] is True, or all without one;
                  of targets, where there are any, those of batch["target_mask"]
    [b, h, w, c]  images: their h w points
    [b, d]        vectors: one position

and what is not a kept position, masked examples included, is emptied at once. A loss
that needs one vector an example has it read off the positions, see `Read`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd.errors import UserError
from kd.types import Batch

Read = Literal["mean", "first", "all"]
"""How positions become a vector: their mean, the first token ([CLS]), or all one after
the other, which makes the width depend on their number."""


class NoSuchLayer(UserError, ValueError):
    """A layer that the network does not have."""


class Misfit(UserError, ValueError):
    """Hidden states that a loss cannot compare."""


def layer(
    who: str, states: Sequence[Any] | Mapping[int, Any], index: int, *, first: int = 0
) -> Any:
    """The entry of a layer.

    Args:
        who: "student" or "teacher", for the message.
        states: `Outputs.hidden`, or `Outputs.attention` with `first` 1; arrays, or
            their shapes only. Of a mapping the entry of that number.
        index: 0 is the first of `Outputs.hidden`, of text the embeddings; -1 the last.
        first: number of the layer that `states` begins with.

    Raises:
        NoSuchLayer: naming those there are.
    """
    if isinstance(states, Mapping):
        return states[index]
    position = index - first if index >= 0 else index + len(states)
    if 0 <= position < len(states):
        return states[position]
    if not states:
        raise NoSuchLayer(f"{who} layer {index}: the {who} exposes no layers")
    last = first + len(states) - 1
    raise NoSuchLayer(f"{who} layer {index}: the {who} has layers {first} to {last}")


def lifted(states: Float[Array, "..."]) -> Float[Array, "..."]:
    """Half precision as float32."""
    return states.astype(jnp.promote_types(states.dtype, jnp.float32))


def positions(
    states: Float[Array, "b ..."], batch: Batch
) -> tuple[Float[Array, "b p d"], Bool[Array, "b p"]]:
    """All positions, 0 where they do not count, and which of them do.

    Raises:
        Misfit: the mask of the batch is not of these tokens.
    """
    if not 2 <= states.ndim <= 4:
        raise Misfit(
            f"a hidden state is [b, d], [b, n, d] or [b, h, w, c], got {states.shape}"
        )
    flat = lifted(states).reshape(len(states), -1, states.shape[-1])
    kept = jnp.broadcast_to(batch["mask"][:, None], flat.shape[:2])
    # What writes a target has states of the target.
    mask = "target_mask" if "target_mask" in batch else "token_mask"
    if states.ndim == 3 and mask in batch:
        if batch[mask].shape != kept.shape:
            raise Misfit(
                f"a hidden state of shape {states.shape} is not of the tokens of "
                f"{mask}, {batch[mask].shape}"
            )
        kept &= batch[mask]
    return jnp.where(kept[..., None], flat, 0), kept


def vectors(
    states: Float[Array, "b ..."], batch: Batch, read: Read
) -> Float[Array, "b d"]:
    """One vector an example, 0 where it is masked.

    Raises:
        Misfit: the first token is asked of what has none.
    """
    if read == "first" and states.ndim == 4:
        raise Misfit(
            'read="first" is the first token; a feature map has none, read its "mean" '
            f'or "all", got {states.shape}'
        )
    flat, kept = positions(states, batch)
    if read == "first":
        return flat[:, 0]
    if read == "all":
        return flat.reshape(len(flat), -1)
    count = jnp.maximum(jnp.sum(kept, axis=1, keepdims=True), 1)
    return jnp.sum(flat, axis=1) / count


def same_resolution(
    student: Float[Array, "b ..."], teacher: Float[Array, "b ..."]
) -> tuple[Float[Array, "b ..."], Float[Array, "b ..."]]:
    """The larger of two feature maps [b, h, w, c] averaged down to the smaller.

    Other shapes are returned as they are.

    Raises:
        Misfit: height and width are not multiples of the smaller.
    """
    if student.ndim != 4 or teacher.ndim != 4:
        return student, teacher
    space = (
        min(student.shape[1], teacher.shape[1]),
        min(student.shape[2], teacher.shape[2]),
    )
    return _averaged(student, space), _averaged(teacher, space)


def _averaged(
    maps: Float[Array, "b h w c"], space: tuple[int, int]
) -> Float[Array, "b ..."]:
    b, h, w, c = maps.shape
    if (h, w) == space:
        return maps
    if h % space[0] or w % space[1]:
        raise Misfit(
            f"feature maps of {h} x {w} and {space[0]} x {space[1]} points: one must "
            "be a multiple of the other; choose other layers"
        )
    blocks = lifted(maps).reshape(
        b, space[0], h // space[0], space[1], w // space[1], c
    )
    return jnp.mean(blocks, axis=(2, 4))
