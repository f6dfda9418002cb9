"""A multi-layer perceptron, for tables and small images."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from kd.errors import UserError
from kd.types import Batch, ComputeDtype, Model, Outputs, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLP:
    """Sizes of a multi-layer perceptron.

        x_0 = inputs, flattened;  x_k = dropout(relu(W_k x_{k-1} + b_k))

    Args:
        widths: hidden units of each layer, at least one layer.
        dropout: rate on the output of every hidden layer.

    Raises:
        ValueError: there is no layer, a width is not a positive whole number, or the
            rate is outside [0, 1).
    """

    widths: tuple[int, ...] = (256, 256)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.widths or any(
            not isinstance(width, int) or width < 1 for width in self.widths
        ):
            raise ValueError(
                f"widths needs positive numbers of units, whole ones, got {self.widths}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, must be in [0, 1)")

    @classmethod
    def large(cls, **changes: Any) -> "MLP":
        """Three layers of 512 units, with dropout 0.3."""
        return dataclasses.replace(cls(widths=(512, 512, 512), dropout=0.3), **changes)

    @classmethod
    def small(cls, **changes: Any) -> "MLP":
        """One layer of 32 units."""
        return dataclasses.replace(cls(widths=(32,)), **changes)

    def build(
        self, num_classes: int, *, compute_dtype: ComputeDtype = "float32"
    ) -> Model:
        """The network with a fresh head, as two pure functions.

        A batch holds `inputs` [b, ...] float; all axes but the first are flattened.
        `Outputs.hidden` has the output of every hidden layer, before dropout, [b, d].

        Args:
            num_classes: v, the width of the logits.
            compute_dtype: of matrix products and of `Outputs.hidden`; parameters and
                logits are float32 in any case.
        """
        network = _Network(self, num_classes, jnp.dtype(compute_dtype))

        def init(key: PRNGKeyArray, batch: Batch) -> Params:
            return network.init(key, _inputs(batch), train=False)["params"]

        def apply(params: Params, batch: Batch, key: PRNGKeyArray | None) -> Outputs:
            outputs = network.apply(
                {"params": params},
                _inputs(batch),
                train=key is not None,
                rngs=None if key is None else {"dropout": key},
            )
            return cast(Outputs, outputs)

        return Model(init, apply)

    def tail(
        self, layer: int, num_classes: int
    ) -> Callable[[Params, Float[Array, "b d"]], Float[Array, "b v"]]:
        """What follows a hidden layer: (params, its output) -> logits, dropout off.

        Args:
            layer: its place in `Outputs.hidden`, from 0.
            num_classes: v.
        """
        network = _Network(self, num_classes, jnp.dtype("float32"))

        def logits(params: Params, hidden: Float[Array, "b d"]) -> Float[Array, "b v"]:
            outputs = network.apply(
                {"params": params}, hidden, train=False, first=layer + 1
            )
            return cast(Outputs, outputs).logits

        return logits


def _inputs(batch: Batch) -> Float[Array, "b ..."]:
    if "inputs" not in batch:
        raise UserError("an MLP reads arrays, and a batch has no inputs")
    return batch["inputs"]


class _Network(nn.Module):
    mlp: MLP
    num_classes: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "b ..."], *, train: bool, first: int = 0
    ) -> Outputs:
        """From layer `first` on, which the inputs are those of."""
        x = inputs.reshape(len(inputs), -1)
        hidden = []
        for i, width in [*enumerate(self.mlp.widths)][first:]:
            x = nn.relu(nn.Dense(width, dtype=self.dtype, name=f"layer_{i}")(x))
            hidden.append(x)
            x = nn.Dropout(self.mlp.dropout, deterministic=not train)(x)
        classifier = nn.Dense(self.num_classes, dtype=jnp.float32, name="classifier")
        return Outputs(classifier(x), tuple(hidden))
