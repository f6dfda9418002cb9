"""Distances of tokens as T5 tells them apart: one by one if near, in buckets if far."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int


def bucket(
    distance: Int[Array, "..."],
    *,
    bidirectional: bool,
    num_buckets: int,
    max_distance: int,
) -> Int[Array, "..."]:
    """The bucket of a distance, that of a key less that of its query.

    With k buckets for a side, a distance below k / 2 has its own, and

        k / 2 + ⌊(k / 2) log(2 distance / k) / log(2 max_distance / k)⌋

    is that of a larger one, k - 1 at most.

    Args:
        distance: positive where the key stands behind the query.
        bidirectional: such keys have the second half of the buckets; else all of them
            have bucket 0, and are not seen.
        num_buckets: of both sides together.
        max_distance: from which on all are in the last one.

    Source: raffel2020exploring, whose text has no formula; this is that of the code.
    """
    first = jnp.zeros((), jnp.int32)
    if bidirectional:
        num_buckets //= 2
        first = jnp.where(distance > 0, num_buckets, 0)
    else:
        distance = jnp.minimum(distance, 0)
    exact = num_buckets // 2
    # By numpy, because a compiler may round a logarithm to the other side of an edge.
    all_distances = np.arange(max_distance + 1)
    far = np.log(np.maximum(all_distances, 1).astype(np.float32) / exact)
    far = far / math.log(max_distance / exact) * (num_buckets - exact)
    of_distance = np.where(
        all_distances < exact,
        all_distances,
        np.minimum(exact + far.astype(np.int32), num_buckets - 1),
    )
    near = jnp.minimum(jnp.abs(distance), max_distance)
    return first + jnp.asarray(of_distance, jnp.int32)[near]
