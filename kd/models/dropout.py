"""Dropout that padding does not change."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Dropout(nn.Dropout):
    """`nn.Dropout`, and the same draws for text that is padded further than it was.

    JAX draws by the place of an entry in the flattened array, so padding would move
    every entry to another draw. Here each entry gets the draw of its place without
    the padding.
    """

    def __call__(  # pyrefly: ignore[bad-override]
        self,
        inputs: Float[Array, "..."],
        width: Int[Array, ""] | None = None,
        token_axes: Sequence[int] = (1,),
    ) -> Float[Array, "..."]:
        """Drops entries, and rescales the others.

        Args:
            inputs: of any shape.
            width: tokens before the padding; what is beyond gets anything. None where
                there is no other padding than ever.
            token_axes: those of the inputs that run over tokens.
        """
        if width is None or self.deterministic or not self.rate:
            return super().__call__(inputs)
        keep = 1.0 - self.rate
        key = self.make_rng(self.rng_collection)
        # Needs jax_threefry_partitionable, JAX's default: a draw then depends on its
        # place alone, not on how many there are.
        kept = jax.random.bernoulli(key, keep, (inputs.size,))
        place = jnp.int32(0)
        for axis, size in enumerate(inputs.shape):
            extent = width if axis in token_axes else size
            along = jax.lax.broadcasted_iota(jnp.int32, inputs.shape, axis)
            place = place * extent + jnp.minimum(along, extent - 1)
        kept = kept.at[place].get(mode="promise_in_bounds")
        return jnp.where(kept, inputs / keep, jnp.zeros_like(inputs))
