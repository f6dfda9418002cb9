"""What is drawn from: the distribution of the next token, cut."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Tokens are drawn from softmax(logits / temperature), cut and scaled to sum 1.

    Args:
        temperature: positive.
        top_k: if given, only so many of the most likely tokens are drawn; more where
            the last ones are equally likely.
        top_p: if less than 1, only the fewest most likely tokens that have this
            probability together, of those that `top_k` leaves.

    Source: top_p holtzman2020curious; the order of the three is transformers'.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}, must be positive")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}, must be at least 1")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, must be in (0, 1]")

    def cut(self, logits: Float[Array, "b v"]) -> Float[Array, "b v"]:
        """The logits drawn from: -inf for what is never drawn."""
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = jax.lax.top_k(logits, self.top_k)[0][:, -1:]
            logits = jnp.where(logits < least, -jnp.inf, logits)
        if self.top_p < 1:
            ordered = jnp.sort(logits, axis=-1, descending=True)
            probs = jax.nn.softmax(ordered)
            before = jnp.cumsum(probs, axis=-1) - probs
            least = jnp.min(
                jnp.where(before < self.top_p, ordered, jnp.inf), axis=-1, keepdims=True
            )
            logits = jnp.where(logits < least, -jnp.inf, logits)
        return logits
