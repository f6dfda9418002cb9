"""Weighted sums of losses."""

import dataclasses
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kd.objective.chunked import OverRows, large, rows_at_once, weighted_sum
from kd.objective.loss import Loss
from kd.objective.partition import taken_together
from kd.objective.told import Logits, tell
from kd.types import Batch, Embedding, Metrics, Outputs, Params, Weight


@dataclasses.dataclass(frozen=True)
class Term:
    """A loss and its weight: a number, or a schedule of the optimizer step."""

    weight: Weight
    loss: Loss


@dataclasses.dataclass(frozen=True)
class Mix:
    """The objective: a weighted sum of per-example losses, averaged over examples.

        loss = sum_k weight_k(step) * mean_i loss_k,i      over unmasked examples i

    A term that reads labels is averaged over the unmasked examples whose label is not
    hidden (`kd.data.sample`), one that needs the teacher over those that it is asked
    about, and is 0 where there is none. The metrics hold `loss` and, before weighting,
    `loss/<name>` of every term, beside what the term's own metrics are, as
    `<name>/<metric>`.

    `batch["label_weight"]` [b] float, where labels are hidden: n / m for the m of n
    unmasked examples that have one, 0 for the others, as `Sample.of_batch` makes it;
    so "answer_weight" where teachers are not asked about all, and
    "label_and_answer_weight" for terms that read both.

    Where views mix examples (`kd.views`), each has a second label, "mixed_labels" [b],
    and weights of both, "label_weight" and "mixed_label_weight" [b]. A term that reads
    labels is then, example by example, the weighted sum of its values with the one and
    with the other; one whose examples are coupled by their labels sees all first ones,
    then all second ones.
    """

    terms: tuple[Term, ...]

    def __add__(self, other: "Loss | Mix") -> "Mix":
        return Mix(
            self.terms + (other if isinstance(other, Mix) else 1.0 * other).terms
        )

    def __post_init__(self) -> None:
        repeated = {name for name in self.names if self.names.count(name) > 1}
        if repeated:
            raise ValueError(f"terms of one mix share the name {sorted(repeated)[0]!r}")

    @property
    def names(self) -> list[str]:
        return [term.loss.name for term in self.terms]

    @property
    def losses(self) -> tuple[Loss, ...]:
        return tuple(term.loss for term in self.terms)

    @property
    def needs_teacher(self) -> bool:
        return any(term.loss.needs_teacher for term in self.terms)

    @property
    def reads_hidden(self) -> bool:
        return any(term.loss.reads_hidden for term in self.terms)

    @property
    def reads_logits(self) -> bool:
        return any(term.loss.reads_logits for term in self.terms)

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        """Those of all terms, once each."""
        return embeddings_of(self.losses)

    @property
    def live_readers(self) -> list[str]:
        """Terms for which a teacher runs in every step, see `live_readers`."""
        return live_readers(self.losses)

    def init(
        self, key: PRNGKeyArray, student: Outputs, teacher: Outputs | None
    ) -> Params:
        """Learnable parameters of every term, by its name."""
        keys = jax.random.split(key, len(self.terms))
        return {
            term.loss.name: term.loss.init(key, student, teacher)
            for key, term in zip(keys, self.terms, strict=True)
        }

    def apply(
        self,
        params: Params,
        student: Outputs,
        teacher: Outputs | None,
        batch: Batch,
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], Metrics]:
        """The scalar to differentiate and its parts, in float32."""
        _, metrics = self.weighted(params, student, teacher, batch, step)
        return metrics["loss"], metrics

    def problems_within(self, num_steps: int) -> Iterator[str]:
        """What speaks against schedules in a run of so many steps, a line each."""
        for term in self.terms:
            if callable(term.weight):
                values = values_within(term.weight, num_steps)
                # Up to rounding; and so that it finds what is no number.
                wrong = np.flatnonzero(~((values > -1e-6) & (values < np.inf)))
                if len(wrong):
                    yield (
                        f"the weight of {term.loss.name} must be finite and not "
                        f"negative; at step {wrong[0]} its schedule gives "
                        f"{values[wrong[0]]:.4g}"
                    )
            if problem := term.loss.problem_within(num_steps):
                yield f"{term.loss.name}: {problem}"

    def weights(self, step: Int[Array, ""]) -> list[Any]:
        """The weight of every term at a step: a number, or a scalar array."""
        return [
            term.weight(step) if callable(term.weight) else term.weight
            for term in self.terms
        ]

    def weighted(
        self,
        params: Params,
        student: Outputs,
        teacher: Outputs | None,
        batch: Batch,
        step: Int[Array, ""],
        *,
        apart: bool = False,
    ) -> tuple[list[Float[Array, ""]], Metrics]:
        """The terms of the sum one by one, and the metrics of `apply`.

        The gradient of the sum is that of `metrics["loss"]`; the terms have gradients
        of their own for sure only where they are asked for `apart`.
        """
        batch = {**batch, "step": step}
        weights = self.weights(step)
        if found := self._over_rows(weights, student, teacher, batch, apart):
            return found
        values = []
        metrics: Metrics = {}
        for term, weight in zip(self.terms, weights, strict=True):
            name = term.loss.name
            losses, watched = _look(term.loss, params[name], student, teacher, batch)
            value = masked_mean(losses, batch["mask"])
            values.append(weight * value)
            metrics[f"loss/{name}"] = value
            metrics |= {f"{name}/{key}": number for key, number in watched.items()}
        return values, {"loss": sum(values, jnp.float32(0.0))} | metrics

    def _over_rows(
        self,
        weights: list[Any],
        student: Outputs,
        teacher: Outputs | None,
        batch: Batch,
        apart: bool,
    ) -> tuple[list[Float[Array, ""]], Metrics] | None:
        """`weighted` without all logits, where there are many and no term needs them.

        Terms that are computed row by row are so together.
        """
        ours, theirs = student.head, None
        if teacher is not None:
            theirs = teacher.head if teacher.top is None else teacher.top
        if ours is None or not large(ours):
            return None
        ours, theirs = ours.flat(), theirs and theirs.flat()
        without = self.needs_teacher and theirs is None
        before = {
            "term_gradients": apart,
            "a teacher of whom all logits are kept (keep=dense)": without,
            "an example without a label or an answer": _is_partly_unknown(batch),
        }
        reasons = [what for what, holds in before.items() if holds]
        parts: list[OverRows] = []
        for term in () if reasons else self.terms:
            part = term.loss.over_rows(batch, ours, theirs)
            if part is None:
                reasons.append(term.loss.name)
            else:
                parts.append(part)
        together = [i for i, part in enumerate(parts) if part.values is None]
        num_rows = len(ours.hidden)
        at_once = min(rows_at_once(ours.num_outputs), num_rows)
        if reasons or together:
            rows = 0 if reasons else at_once
            tell(Logits(num_rows, ours.num_outputs, rows, ", ".join(reasons)))
        if reasons:
            return None
        total, values = jnp.float32(0.0), {}
        if together:
            total, sums = weighted_sum(
                [parts[i].loss for i in together],
                jnp.stack([jnp.asarray(weights[i], float) for i in together]),
                ours,
                theirs,
                {k: x for i in together for k, x in parts[i].rows.items()},
                jnp.stack([parts[i].weights for i in together]),
                num_rows=at_once,
            )
            values = dict(zip(together, sums, strict=True))
        metrics: Metrics = {}
        for i, (part, name) in enumerate(zip(parts, self.names, strict=True)):
            if part.values is not None:
                values[i] = jnp.sum(part.weights * part.values)
                total = total + weights[i] * values[i]
            metrics[f"loss/{name}"] = values[i]
            metrics |= {f"{name}/{key}": number for key, number in part.metrics.items()}
        weighted = [weight * values[i] for i, weight in enumerate(weights)]
        return weighted, {"loss": total} | metrics


def embeddings_of(losses: Iterable[Loss]) -> tuple[Embedding, ...]:
    """Those that some loss reads, once each."""
    return tuple(dict.fromkeys(e for loss in losses for e in loss.embeddings))


def live_readers(losses: Iterable[Loss]) -> list[str]:
    """Losses for which a teacher runs in every step: embeddings are not enough."""
    reads: dict[int, str] = {}
    readers = []
    for loss in losses:
        own = [e for e in loss.embeddings if e.of == "example"]
        # Cached, a layer is one vector.
        if loss.reads_hidden and (
            not own or any(reads.setdefault(e.layer, e.read) != e.read for e in own)
        ):
            readers.append(loss.name)
    return [*dict.fromkeys(readers)]


def is_told(losses: Sequence[Loss], names: Container[str]) -> bool:
    """Whether a batch holds all that losses read of a teacher, but for its logits.

    Args:
        losses: the losses.
        names: of what the batch holds.
    """
    wanted = [e for e in embeddings_of(losses) if e.of == "example"]
    return not live_readers(losses) and all(e.name in names for e in wanted)


def _share(loss: Loss, batch: Batch) -> Float[Array, "b"] | None:
    """The weight of every example in a loss that something is unknown to; or None."""
    read = {"label": loss.reads_labels, "answer": loss.needs_teacher}
    lacking = [name for name in read if read[name] and f"{name}_weight" in batch]
    return batch[f"{'_and_'.join(lacking)}_weight"] if lacking else None


def _is_partly_unknown(batch: Batch) -> bool:
    """Whether examples lack labels or answers, or have labels of their own weight."""
    return any(name.endswith("_weight") for name in batch)


def _look(
    loss: Loss, params: Params, student: Outputs, teacher: Outputs | None, batch: Batch
) -> tuple[Float[Array, "b"], Metrics]:
    """A loss on what examples have, each by its weight.

    The metrics are those of the first labels.
    """
    student, teacher = taken_together(loss, student, teacher, batch)
    share = _share(loss, batch)
    if share is None:
        return loss.per_example_with_metrics(params, student, teacher, batch)

    def on(share, labels):
        # Where something counts for nothing it may be hidden.
        seen = {**batch, "labels": labels, "mask": batch["mask"] & (share > 0)}
        losses, metrics = loss.per_example_with_metrics(params, student, teacher, seen)
        return losses * share, metrics

    losses, metrics = on(share, batch["labels"])
    if loss.reads_labels and "mixed_labels" in batch:
        others, _ = on(batch["mixed_label_weight"], batch["mixed_labels"])
        losses = losses + others
    return losses, metrics


def values_within(
    schedule: optax.Schedule, num_steps: int
) -> Float[np.ndarray, "num_steps"]:
    """What a schedule gives in a run of so many steps."""
    at_step = jax.vmap(lambda step: jnp.asarray(schedule(step), jnp.float32))
    return np.asarray(jax.jit(at_step)(jnp.arange(num_steps)))


def masked_mean(values: Float[Array, "b"], where: Array) -> Float[Array, ""]:
    """Mean over the rows where `where` is True; 0 if there is none."""
    return jnp.sum(values, where=where) / jnp.maximum(jnp.sum(where), 1)
