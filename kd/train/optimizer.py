"""AdamW with a linear schedule and clipping, as BERT is fine-tuned."""

import dataclasses

import jax
import optax


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW (loshchilov2019decoupled).

    The learning rate rises linearly over the first `warmup` share of all steps and
    then falls linearly to 0 at the last.

    Attributes:
        learning_rate: at its peak.
        warmup: share of the steps, in [0, 1).
        weight_decay: decoupled; of matrices only, not of biases and norms.
        b1: decay of the mean gradient.
        b2: decay of the mean squared gradient.
        epsilon: added to the root of the mean squared gradient.
        clip: largest global norm of the gradient; 0 for no limit.
    """

    learning_rate: float = 4e-5
    warmup: float = 0.0
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    clip: float = 1.0

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(
                f"learning_rate must be positive, got {self.learning_rate}"
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(
                f"warmup is a share of the steps, in [0, 1), got {self.warmup}"
            )
        if self.clip < 0:
            raise ValueError(f"clip must not be negative, got {self.clip}")

    def schedule(self, num_steps: int) -> optax.Schedule:
        """The learning rate of every step."""
        rising = round(self.warmup * num_steps)
        fall = optax.linear_schedule(self.learning_rate, 0.0, num_steps - rising)
        if not rising:
            return fall
        rise = optax.linear_schedule(0.0, self.learning_rate, rising)
        return optax.join_schedules([rise, fall], [rising])

    def build(self, num_steps: int) -> optax.GradientTransformation:
        """The transformation for a run of `num_steps` steps."""
        adamw = optax.adamw(
            self.schedule(num_steps),
            b1=self.b1,
            b2=self.b2,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            mask=_matrices,
        )
        if not self.clip:
            return adamw
        return optax.chain(optax.clip_by_global_norm(self.clip), adamw)


def _matrices(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
