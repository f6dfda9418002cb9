"""The next token: the target of language modelling, and its metrics.

The logits of a split are tokens x vocabulary, too many to hold. So a few numbers are
kept of each prediction, computed batch by batch, and metrics are functions of these.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kd.evaluate import calibration
from kd.evaluate.metric import Metric
from kd.evaluate.target import Target
from kd.types import Batch


class Kept(NamedTuple):
    """What is kept of each prediction: columns of one float32 array, in this order."""

    log_likelihood: Any
    """log p(token that came), in nats."""
    choice: Any
    """The likeliest token."""
    log_confidence: Any
    """log p(choice), in nats."""
    num_bytes: Any
    """Of the token that came; 0 of one that is no text, such as an end."""
    kl: Any
    """KL(teacher || student) in nats; NaN where the teacher was not beside it."""


_SIZE = len(Kept._fields)


def kept(logits: Float[Array, "b n v"], batch: Batch) -> Float[Array, "b n k"]:
    """`Kept` of every prediction, 0 where none counts.

    Args:
        logits: any float dtype; -inf is a token of probability 0.
        batch: with `labels` [b, n], the tokens that came, `prediction_mask` [b, n] and
            `num_bytes` [b, n].
    """
    counts = batch["prediction_mask"]
    log_probs = jax.nn.log_softmax(logits.astype(_exact(logits.dtype)))
    came = jnp.where(counts, batch["labels"], 0)
    columns = Kept(
        jnp.take_along_axis(log_probs, came[..., None], axis=-1)[..., 0],
        jnp.argmax(log_probs, axis=-1),
        jnp.max(log_probs, axis=-1),
        batch["num_bytes"],
        jnp.full(counts.shape, jnp.nan),
    )
    found = jnp.stack([x.astype(jnp.float32) for x in columns], axis=-1)
    return jnp.where(counts[..., None], found, 0)


def kept_beside(
    student: Float[Array, "b n v"], teacher: Float[Array, "b n v"], batch: Batch
) -> Float[Array, "b n k"]:
    """The same of a student, and how far it is from its teacher at every token."""
    log_p, log_q = (
        jax.nn.log_softmax(x.astype(_exact(x.dtype))) for x in (student, teacher)
    )
    q = jnp.exp(log_q)
    # q rather than log q decides what counts as 0: exp underflows, and 0 * inf is NaN.
    kl = jnp.sum(jnp.where(q > 0, q * (log_q - log_p), 0), axis=-1)
    kl = jnp.where(batch["prediction_mask"], kl, 0)
    return kept(student, batch).at[..., Kept._fields.index("kl")].set(kl)


def perplexity(
    outputs: Float[np.ndarray, "n t k"], targets: Int[np.ndarray, "n t"]
) -> float:
    """exp(-mean log p(token that came)), over all tokens of all texts.

    Args:
        outputs: what `kept` gives.
        targets: the tokens that came; -1 where no prediction counts.
    """
    return math.exp(min(negative_log_likelihood(outputs, targets), 700.0))


def negative_log_likelihood(
    outputs: Float[np.ndarray, "n t k"], targets: Int[np.ndarray, "n t"]
) -> float:
    """-mean log p(token that came), nats per token."""
    return -float(_predictions(outputs, targets).log_likelihood.mean())


def bits_per_byte(
    outputs: Float[np.ndarray, "n t k"], targets: Int[np.ndarray, "n t"]
) -> float:
    """-sum log2 p(token that came) / sum of its bytes, over tokens that are text.

    The bytes are those of the text in UTF-8, so that networks with other vocabularies
    can be compared. The ends of texts, which have none, do not count.
    """
    found = _predictions(outputs, targets)
    text = found.num_bytes > 0
    if not text.any():
        raise ValueError("there is no text: no token has a byte")
    nats = -found.log_likelihood[text].sum()
    return float(nats / (math.log(2) * found.num_bytes[text].sum()))


def accuracy(
    outputs: Float[np.ndarray, "n t k"], targets: Int[np.ndarray, "n t"]
) -> float:
    """Share of the tokens that were the likeliest ones."""
    found = _predictions(outputs, targets)
    return float((found.choice == targets[targets >= 0]).mean())


def expected_calibration_error(
    outputs: Float[np.ndarray, "n t k"], targets: Int[np.ndarray, "n t"]
) -> float:
    """That of the likeliest tokens, in 15 bins of equal width."""
    return in_bins(outputs, targets).expected_calibration_error


def in_bins(
    outputs: Float[np.ndarray, "n t k"], targets: Int[np.ndarray, "n t"]
) -> calibration.Reliability:
    """Confidence in the likeliest tokens against how often they came."""
    found = _predictions(outputs, targets)
    confidence = np.clip(np.exp(found.log_confidence), 0, 1)
    return calibration.in_bins(confidence, found.choice == targets[targets >= 0])


def agreement(
    student: Float[np.ndarray, "n t k"], teacher: Float[np.ndarray, "n t k"]
) -> float:
    """Share of the tokens where both find the same one likeliest."""
    counts = _counting(teacher)
    ours, theirs = (
        Kept(*np.moveaxis(student, -1, 0)),
        Kept(*np.moveaxis(teacher, -1, 0)),
    )
    return float((ours.choice == theirs.choice)[counts].mean())


def kl(
    student: Float[np.ndarray, "n t k"], teacher: Float[np.ndarray, "n t k"]
) -> float:
    """mean_j KL(teacher || student) at token j, in nats."""
    column = student[..., Kept._fields.index("kl")].astype(np.float64)
    return float(column[_counting(teacher)].mean())


def _counting(outputs: Float[np.ndarray, "n t k"]) -> Bool[np.ndarray, "n t"]:
    """Where there is a prediction: elsewhere all is 0, a probability of 1 included."""
    return np.any(outputs, axis=-1)


def _predictions(outputs: np.ndarray, targets: np.ndarray) -> Kept:
    """The columns in float64, of the predictions that count."""
    if outputs.shape != (*targets.shape, _SIZE):
        raise ValueError(
            f"expected {_SIZE} numbers for each of the targets {targets.shape}, got "
            f"shape {outputs.shape}"
        )
    counts = targets >= 0
    if not counts.any():
        raise ValueError("there are no predictions")
    return Kept(*np.moveaxis(np.asarray(outputs[counts], np.float64), -1, 0))


def _exact(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


PERPLEXITY = Metric(
    "perplexity",
    "perplexity",
    "between how many tokens the network seems to choose",
    perplexity,
    higher_is_better=False,
)
BITS_PER_BYTE = Metric(
    "bits_per_byte",
    "bits per byte",
    "of the text in UTF-8; ends of texts do not count",
    bits_per_byte,
    higher_is_better=False,
)
TOKEN_ACCURACY = Metric(
    "token_accuracy",
    "token accuracy",
    "tokens that were the likeliest",
    accuracy,
    percent=True,
)
NLL = Metric(
    "nll",
    "NLL",
    "cross-entropy with the tokens that came, nats per token",
    negative_log_likelihood,
    higher_is_better=False,
)
ECE = Metric(
    "ece",
    "ECE",
    "how far confidence in a token is from accuracy, on average",
    expected_calibration_error,
    higher_is_better=False,
    percent=True,
)
AGREEMENT = Metric(
    "agreement",
    "agreement",
    "of the tokens: the same likeliest one as the teacher's",
    agreement,
    percent=True,
)
KL = Metric(
    "kl",
    "KL divergence",
    "teacher ‖ student, nats per token",
    kl,
    higher_is_better=False,
)


@dataclasses.dataclass(frozen=True)
class Tokens(Target):
    """The next token at every place of a text; a network gives a logit for each.

    Attributes:
        official: the metrics that the field reports, the main one first.
    """

    official: tuple[Metric, ...] = (PERPLEXITY, BITS_PER_BYTE)  # pyrefly: ignore
    targets_name = "next_tokens"
    keeps_logits = False
    compares_beside = True
    of_tokens = True

    @property
    def labels(self) -> tuple[str, ...]:
        """None: the outputs are the tokens of the network's own vocabulary."""
        return ()

    @property
    def usual(self) -> tuple[Metric, ...]:
        return (PERPLEXITY, BITS_PER_BYTE, TOKEN_ACCURACY, NLL, ECE)

    @property
    def fidelity(self) -> tuple[Metric, ...]:
        return (AGREEMENT, KL)

    @property
    def watched(self) -> tuple[Metric, ...]:
        return (PERPLEXITY, BITS_PER_BYTE, TOKEN_ACCURACY)

    @property
    def watched_fidelity(self) -> tuple[Metric, ...]:
        """KL needs both networks at once, so it is computed at the end alone."""
        return (AGREEMENT,)

    def keep(self, logits: Any, batch: Batch) -> Any:
        return kept(logits, batch)

    def keep_beside(self, student: Any, teacher: Any, batch: Batch) -> Any:
        return kept_beside(student, teacher, batch)

    @property
    def problem_type(self) -> str:
        return ""

    def parse(self, text: str) -> int:
        raise ValueError(f"a token is no label that a file writes, got {text!r:.80}")

    def array(self, values: Sequence[int | float]) -> np.ndarray:
        return np.asarray(values, np.int32)

    def problem(self, targets: np.ndarray) -> str:
        del targets
        return ""

    def predictions(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """`next_tokens` and `num_bytes` [n, t], and of each network the rest.

        `<name>_log_likelihood`, `_choice`, `_log_confidence` and `_kl`, [n, t].
        """
        found: dict[str, np.ndarray] = {self.targets_name: targets}
        for name, values in outputs.items():
            columns = Kept(*np.moveaxis(values, -1, 0))
            found["num_bytes"] = columns.num_bytes.astype(np.int32)
            found[f"{name}_choice"] = columns.choice.astype(np.int32)
            for column in ("log_likelihood", "log_confidence", "kl"):
                found[f"{name}_{column}"] = getattr(columns, column)
        return found

    def read_predictions(
        self, arrays: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        ending = "_log_likelihood"
        names = [k.removesuffix(ending) for k in arrays if k.endswith(ending)]

        def column(name: str, field: str) -> np.ndarray:
            values = arrays[field if field == "num_bytes" else f"{name}_{field}"]
            return np.asarray(values, np.float32)

        return arrays[self.targets_name], {
            name: np.stack([column(name, f) for f in Kept._fields], axis=-1)
            for name in names
        }

    def ensemble(self, outputs: Sequence[Any]) -> Any:
        """Logits of the mean of the networks' probabilities, token by token."""
        logs = jnp.stack([jax.nn.log_softmax(jnp.asarray(x)) for x in outputs])
        return jax.nn.logsumexp(logs, axis=0) - np.log(len(outputs))
