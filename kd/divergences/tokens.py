"""Losses of single predictions, applied to the tokens of sequences."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from kd.objective import Loss, OverRows, Wrapper, masked_mean
from kd.types import Batch, Head, Metrics, Outputs, Params, TopLogits

_NO_DEVICES = jax.sharding.AbstractMesh((), ())


@dataclasses.dataclass(frozen=True)
class PerToken(Wrapper):
    """Another loss, with the predictions of all tokens of a batch as its rows.

    Logits [b, n, v] become [b n, v], and the token mask `batch["prediction_mask"]`
    [b, n], True where a prediction counts, says which rows the loss sees. With r_ij
    what it gives at token j of sequence i, over the tokens that count,

        losses_i = b / num_tokens sum_j r_ij               average="tokens"
        losses_i = 1 / num_tokens_i sum_j r_ij             average="sequences"

    for b unmasked sequences. The mean over sequences is the mean of r over all
    tokens of the batch in the first case, and the mean of every sequence's own mean
    in the second, which does not depend on what else is in the batch. Where a batch is
    processed in parts (`num_microbatches`), num_tokens / b is that of the whole batch,
    as each part finds it in `batch["tokens_per_example"]`; not so where labels or
    answers are hidden of some. A loss that couples its rows couples all tokens.

    Mask and labels are aligned to predictions: position j says whether and what the
    logits at j are to predict, so that nothing is shifted here. `batch["labels"]`
    [b, n] is needed by losses that read labels, and may hold anything (-100) at
    tokens that do not count.

    Args:
        loss: of rows: any divergence of this package, or a cross-entropy.
        average: what weighs the same, every token or every sequence.
    """

    average: Literal["tokens", "sequences"] = "tokens"

    def __post_init__(self) -> None:
        if self.average not in ("tokens", "sequences"):
            raise ValueError(
                f'average is "tokens" or "sequences", got {self.average!r}'
            )
        _check_reads_logits(self.loss, "PerToken")
        super().__post_init__()

    @property
    def of_tokens(self) -> bool:
        return True

    def init(
        self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None
    ) -> Params:
        flat = jax.eval_shape(_flat, student)
        return self.loss.init(key, flat, teacher and jax.eval_shape(_flat, teacher))

    def per_example_with_metrics(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[Float[Array, "b"], Metrics]:
        kept, rows = _kept(batch), _rows(batch)
        losses, metrics = self.loss.per_example_with_metrics(
            params, _flat(student), teacher and _flat(teacher), rows
        )
        totals = jnp.sum(losses.reshape(kept.shape), axis=1)
        return totals * self._share(batch), metrics

    def over_rows(
        self, batch: Batch, student: Head, teacher: Head | TopLogits | None
    ) -> OverRows | None:
        inner = self.loss.over_rows(_rows(batch), student, teacher)
        if inner is None:
            return None
        share = self._share(batch) / jnp.maximum(jnp.sum(batch["mask"]), 1)
        weights = _kept(batch) * jnp.broadcast_to(share, batch["mask"].shape)[:, None]
        return inner._replace(weights=weights.reshape(-1))

    def _share(self, batch: Batch) -> Float[Array, "*b"]:
        """Of every token in its sequence's loss."""
        kept = _kept(batch)
        if self.average == "sequences":
            return 1 / jnp.maximum(jnp.sum(kept, axis=1), 1)
        if "tokens_per_example" in batch:
            return 1 / batch["tokens_per_example"]
        return jnp.sum(batch["mask"]) / jnp.maximum(jnp.sum(kept), 1)


@dataclasses.dataclass(frozen=True)
class PerSequence(Wrapper):
    """Another loss, with the predictions of one sequence at a time as its rows.

        losses_i = 1 / num_tokens_i sum_j r_ij

    where r_i. is what the loss gives for the tokens of sequence i that count, and for
    nothing else: one that couples its rows couples those of a sequence alone, so that
    `PerSequence(SinKD())` has a transport plan for every sequence and
    `PerToken(SinKD())` one for the batch. Losses that do not couple their rows, such
    as `KL`, give what `PerToken(loss, average="sequences")` gives.

    A sequence does not see what else is in the batch. The metrics of the loss are
    averaged over the sequences that have tokens. Shapes, mask and labels are those of
    `PerToken`.

    Args:
        loss: of rows: any divergence of this package, or a cross-entropy.
    """

    def __post_init__(self) -> None:
        _check_reads_logits(self.loss, "PerSequence")
        super().__post_init__()

    @property
    def of_tokens(self) -> bool:
        return True

    def init(
        self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None
    ) -> Params:
        first = jax.eval_shape(_first, student)
        return self.loss.init(key, first, teacher and jax.eval_shape(_first, teacher))

    def per_example_with_metrics(
        self, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[Float[Array, "b"], Metrics]:
        kept = _kept(batch)
        rows = {"mask": kept}
        if "labels" in batch:
            rows["labels"] = batch["labels"]
        if "label_words" in batch:
            words = batch["label_words"][:, None]
            rows["label_words"] = jnp.repeat(words, kept.shape[1], axis=1)

        step = {"step": batch["step"]} if "step" in batch else {}

        def one(student, teacher, rows):
            rows = rows | step
            return self.loss.per_example_with_metrics(
                params, Outputs(student), teacher and Outputs(*teacher), rows
            )

        # Sequences are what devices share, not the tokens of one.
        with jax.sharding.use_abstract_mesh(_NO_DEVICES):
            losses, metrics = jax.vmap(one)(
                student.logits, teacher and (teacher.logits,), rows
            )
        num_tokens = jnp.sum(kept, axis=1)
        losses = jnp.sum(losses, axis=1) / jnp.maximum(num_tokens, 1)
        return losses, {
            name: masked_mean(1.0 * values, num_tokens > 0)
            for name, values in metrics.items()
        }


def _kept(batch: Batch) -> Bool[Array, "b n"]:
    return batch["prediction_mask"] & batch["mask"][:, None]


def _rows(batch: Batch) -> Batch:
    """What a loss of rows reads, of all tokens."""
    kept = _kept(batch)
    rows = {"mask": kept.reshape(-1)}
    if "label_words" in batch:
        rows["label_words"] = jnp.repeat(batch["label_words"], kept.shape[1], axis=0)
    if "labels" in batch:
        rows["labels"] = batch["labels"].reshape(-1)
    if "step" in batch:
        rows["step"] = batch["step"]
    return rows


def _flat(outputs: Outputs) -> Outputs:
    *sizes, num_classes = outputs.logits.shape
    return Outputs(outputs.logits.reshape(math.prod(sizes), num_classes))


def _first(outputs: Outputs) -> Outputs:
    return Outputs(outputs.logits[0])


def _check_reads_logits(loss: Loss, wrapper: str) -> None:
    if loss.reads_hidden:
        raise ValueError(
            f"{wrapper} is for losses of logits; {loss.name} reads hidden states, and "
            "all tokens of them by itself"
        )
