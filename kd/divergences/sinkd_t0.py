"""The loss of the SinKD authors' encoder-decoder script, to compare with."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd.objective import Loss
from kd.transport.cost import L1
from kd.types import Batch, Outputs, Params


@dataclasses.dataclass(frozen=True)
class SinKDOfT0Script(Loss):
    """What the authors' script for T0 computes from logits [b, n, v]: no transport.

        p_itv = exp(s_itv / 2) / sum_t' exp(s_it'v / 2),   q likewise of t
        C_itu = || p_it - q_iu ||_1
        K     = exp(-C / 0.1), then 20 times
                K_itu <- K_itu / sum_t' K_it'u,   K_itu <- K_itu / sum_i' K_i'tu
        losses_i = 0.0008 b sum_tu K_itu C_itu

    Here to reproduce and to measure what the published script did, not to train
    with. A function meant for predictions [b, v] is given sequences, so that

    * the softmax runs over the positions t and not over the vocabulary;
    * the cost is between positions of one sequence;
    * the second normalisation runs over the examples of the batch: K is a plan of no
      transport problem, and the value depends on how the batch is made up;
    * padding takes part like any other position: `prediction_mask` is not read;
    * of answers of a single token the loss is 0, whatever is predicted.

    What was meant is `PerSequence(SinKD())`, a plan for every sequence,
    `PerToken(SinKD())`, one for all tokens, or `LabelWords` around either. Examples
    that are masked (`batch["mask"]`) are as good as absent, which is ours.

    Source: the code of cui2024sinkhorn, `T0/lossd.py`.
    """

    name = "sinkd_t0_script"

    def __call__(
        self,
        student: Float[Array, "b n v"],
        teacher: Float[Array, "b n v"],
        *,
        where: Bool[Array, "b"] | None = None,
    ) -> Float[Array, "b"]:
        """The loss of every example; the mean is that of the script.

        Args:
            student: logits, any float dtype.
            teacher: logits of the same shape.
            where: True on the examples to keep.

        Raises:
            ValueError: the shapes differ, or are not those of sequences.
        """
        if student.shape != teacher.shape or student.ndim != 3:
            raise ValueError(
                "SinKDOfT0Script compares two [b, n, v] arrays of logits, got student "
                f"{student.shape}, teacher {teacher.shape}"
            )
        dtype = jnp.promote_types(student.dtype, jnp.float32)
        kept = jnp.ones(len(student), bool) if where is None else where
        kept = kept[:, None, None]
        student = jnp.where(kept, student, 0).astype(dtype)
        teacher = jnp.where(kept, jax.lax.stop_gradient(teacher), 0).astype(dtype)

        p, q = (jax.nn.softmax(z / 2, axis=1) for z in (student, teacher))
        cost = jax.vmap(L1())(p, q)
        kernel = jnp.where(kept, jnp.exp(-cost / 0.1), 0)

        def normalise(kernel, _):
            kernel = kernel / _or_1(jnp.sum(kernel, axis=1, keepdims=True))
            return kernel / _or_1(jnp.sum(kernel, axis=0, keepdims=True)), None

        kernel, _ = jax.lax.scan(normalise, kernel, length=20)
        return 0.0008 * jnp.sum(kept) * jnp.sum(kernel * cost, axis=(1, 2))

    @property
    def of_tokens(self) -> bool:
        return True

    def per_example(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b"]:
        del params
        assert teacher is not None
        return self(student.logits, teacher.logits, where=batch["mask"])


def _or_1(total):
    return jnp.where(total > 0, total, 1)
