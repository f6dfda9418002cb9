"""What the logits are made of: the last hidden states, and the teacher's head."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from kd.networks.kept.record import Streamed
from kd.objective import Loss
from kd.types import Head, Outputs


@dataclasses.dataclass(frozen=True)
class HiddenAndHead(Streamed):
    """The last hidden states; logits are made of them by the teacher's own head.

        t = head(hidden)

    Every loss has all of its logits, up to the rounding of the hidden states. Bytes a
    prediction: 2 d of a network of width d, whatever the vocabulary. The head is not
    written: it comes from the teacher, a constant of the step.

    Args:
        dtype: of the hidden states: float16 is the more exact up to 65,504, bfloat16
            has no such bound, float32 is exact.
    """

    dtype: Literal["float16", "bfloat16", "float32"] = "float16"

    def problems(self, losses: Sequence[Loss], num_teachers: int) -> Iterator[str]:
        yield from ()

    def problem(self, outputs: Outputs) -> str:
        if outputs.head is None:
            return (
                "keep=hidden: the teacher does not give its head apart from its "
                "logits, as a GPT2 or a Llama does; set keep=dense"
            )
        return ""

    def described(self, outputs: Outputs) -> str:
        assert outputs.head is not None
        width = outputs.head.hidden.shape[-1]
        return (
            f"hidden states of width {width:,} in {self.dtype}, with the teacher's head"
        )

    def arrays(self, outputs: Outputs) -> dict[str, Array]:
        assert outputs.head is not None
        return {"hidden": outputs.head.hidden.astype(self.dtype)}

    def shared(self, outputs: Outputs) -> Head:
        assert outputs.head is not None
        return outputs.head.replace(hidden=None)

    def outputs(self, arrays: Mapping[str, Array], shared: Head) -> Outputs:
        return shared.with_rows(arrays["hidden"]).outputs()

    def errors(self, live: Outputs, told: Outputs) -> dict[str, Array]:
        """The largest error of a log-probability."""
        exact, found = (
            jax.nn.log_softmax(outputs.logits.astype(jnp.float32))
            for outputs in (live, told)
        )
        differ = jnp.where(exact == found, 0, jnp.abs(exact - found))
        return {"log_probability_error": jnp.max(differ, axis=-1, keepdims=True)}
