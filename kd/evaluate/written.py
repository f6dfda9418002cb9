"""A text about a source: the target of translation and data to text, and its metrics.

A network is judged twice: by the text that it writes, and token by token by what it
expects of the reference, as in `kd.evaluate.tokens`.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kd.errors import UserError
from kd.evaluate import tokens
from kd.evaluate.metric import Metric
from kd.evaluate.target import Target
from kd.types import Batch

BETWEEN = "\n"
"""Between the references of a source; none has one in it."""


def joined(kept: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """What is kept of every source: `tokens` [m, k] and `text`, one record each."""
    return _records(("tokens", kept.astype(np.float32)), ("text", np.array(texts)))


def references(labels: np.ndarray, texts: Sequence[Sequence[str]]) -> np.ndarray:
    """What a network is judged by: `tokens` [m] of one reference, and all `texts`.

    Args:
        labels: tokens of a reference, -1 where there is none, [n, m].
        texts: every reference of every source.
    """
    together = np.array([BETWEEN.join(own) for own in texts])
    return _records(("tokens", labels), ("texts", together))


def _records(*columns: tuple[str, np.ndarray]) -> np.ndarray:
    types = [(name, values.dtype, values.shape[1:]) for name, values in columns]
    found = np.empty(len(columns[0][1]), types)
    for name, values in columns:
        found[name] = values
    return found


def bleu(outputs: np.ndarray, targets: np.ndarray) -> float:
    """BLEU of a corpus with sacrebleu's defaults (13a, exponential smoothing), 0 to 1.

    Source: papineni2002bleu, as computed by post2018sacrebleu.
    """
    return _corpus_score("BLEU", outputs, targets)


def chrf(outputs: np.ndarray, targets: np.ndarray) -> float:
    """chrF2 of a corpus with sacrebleu's defaults: characters up to six, 0 to 1.

    Source: popovic2015chrf, as computed by post2018sacrebleu.
    """
    return _corpus_score("CHRF", outputs, targets)


def ter(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Translation edit rate of a corpus with sacrebleu's defaults: edits a word.

    Source: snover2006ter, as computed by post2018sacrebleu.
    """
    return _corpus_score("TER", outputs, targets)


def rouge_l(outputs: np.ndarray, targets: np.ndarray) -> float:
    """F of the longest common subsequence, the best reference, averaged; 0 to 1.

    With the stemmer of rouge-score. Source: lin2004rouge.
    """
    scorer = _rouge().RougeScorer(["rougeL"], use_stemmer=True)
    return float(
        np.mean(
            [
                scorer.score_multi(own.split(BETWEEN), text)["rougeL"].fmeasure
                for own, text in zip(
                    targets["texts"].tolist(), outputs["text"].tolist(), strict=True
                )
            ]
        )
    )


def _corpus_score(name: str, outputs: np.ndarray, targets: np.ndarray) -> float:
    own = [text.split(BETWEEN) for text in targets["texts"].tolist()]
    most = max(map(len, own))
    # It wants the first references of all, then the second ones; None is none.
    filled = [refs + [None] * (most - len(refs)) for refs in own]
    streams = [*map(list, zip(*filled, strict=True))]
    scorer = _scorer(name)
    return scorer.corpus_score(outputs["text"].tolist(), streams).score / 100


def _scorer(name: str) -> Any:
    return getattr(_package("sacrebleu", "sacrebleu.metrics"), name)()


def _rouge() -> Any:
    return _package("rouge-score", "rouge_score.rouge_scorer")


def _package(name: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"texts are scored with the package {name}, which is not installed: "
            f"pip install {name}"
        ) from error


def _of_tokens(compute: Callable[[Any, Any], float]) -> Callable[[Any, Any], float]:
    def of_column(outputs: np.ndarray, others: np.ndarray) -> float:
        return compute(outputs["tokens"], others["tokens"])

    return of_column


def _as_tokens(metric: Metric) -> Metric:
    return dataclasses.replace(metric, compute=_of_tokens(metric.compute))


BLEU = Metric("bleu", "BLEU", "words and their order, with the references", bleu,
              percent=True)  # fmt: skip
CHRF = Metric("chrf", "chrF", "characters and their order, likewise", chrf,
              percent=True)  # fmt: skip
TER = Metric("ter", "TER", "edits a word to reach a reference", ter,
             higher_is_better=False, percent=True)  # fmt: skip
ROUGE_L = Metric("rouge_l", "ROUGE-L", "longest common subsequence of words", rouge_l,
                 percent=True)  # fmt: skip
PERPLEXITY, TOKEN_ACCURACY, NLL, AGREEMENT, KL = map(
    _as_tokens,
    (
        *(tokens.PERPLEXITY, tokens.TOKEN_ACCURACY, tokens.NLL),
        *(tokens.AGREEMENT, tokens.KL),
    ),
)
_PACKAGES = {"bleu": "BLEU", "chrf": "CHRF", "ter": "TER"}
"""Classes of sacrebleu by our names."""


@dataclasses.dataclass(frozen=True)
class WrittenText(Target):
    """A text, written token by token; a network gives a logit for each token.

    Attributes:
        official: the metrics that the field reports, the main one first.
        num_references: of every source, for the signature of scores; 0 where one has
            more than another.
    """

    official: tuple[Metric, ...] = (BLEU, CHRF)  # pyrefly: ignore
    num_references: int = 1
    keeps_logits = False
    compares_beside = True
    of_tokens = True
    writes = True

    @property
    def labels(self) -> tuple[str, ...]:
        """None: the outputs are the tokens of the network's own vocabulary."""
        return ()

    @property
    def usual(self) -> tuple[Metric, ...]:
        return (PERPLEXITY, TOKEN_ACCURACY, NLL)

    @property
    def fidelity(self) -> tuple[Metric, ...]:
        return (AGREEMENT, KL)

    @property
    def watched(self) -> tuple[Metric, ...]:
        return (*self.official, PERPLEXITY)

    @property
    def watched_fidelity(self) -> tuple[Metric, ...]:
        return (AGREEMENT,)

    def keep(self, logits: Any, batch: Batch) -> Any:
        return tokens.kept(logits, batch)

    def keep_beside(self, student: Any, teacher: Any, batch: Batch) -> Any:
        return tokens.kept_beside(student, teacher, batch)

    def with_texts(self, kept: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        return joined(kept, texts)

    def check_installed(self) -> None:
        """Raises UserError where a package that scores texts is not there."""
        for metric in self.metrics:
            if metric.name in _PACKAGES:
                _scorer(_PACKAGES[metric.name])
            elif metric.name == ROUGE_L.name:
                _rouge()

    @property
    def problem_type(self) -> str:
        return ""

    def parse(self, text: str) -> int:
        raise ValueError(f"a text is no label that a file writes, got {text!r:.80}")

    def array(self, values: Sequence[int | float]) -> np.ndarray:
        return np.asarray(values, np.int32)

    def problem(self, targets: np.ndarray) -> str:
        del targets
        return ""

    def predictions(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Those of `Tokens`, and `references` [n] and of each network `<name>_text`."""
        kept = {name: values["tokens"] for name, values in outputs.items()}
        texts = {f"{name}_text": values["text"] for name, values in outputs.items()}
        of_tokens = tokens.Tokens().predictions(targets["tokens"], kept)
        return of_tokens | {"references": targets["texts"]} | texts

    def read_predictions(
        self, arrays: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        labels, kept = tokens.Tokens().read_predictions(arrays)
        targets = _records(("tokens", labels), ("texts", arrays["references"]))
        return targets, {
            name: _records(("tokens", values), ("text", arrays[f"{name}_text"]))
            for name, values in kept.items()
        }

    def ensemble(self, outputs: Sequence[Any]) -> Any:
        """Logits of the mean of the networks' probabilities, token by token."""
        return tokens.Tokens().ensemble(outputs)

    def described(self) -> dict[str, Any]:
        """With the signatures of sacrebleu, which say how its scores were computed."""
        signatures = {}
        for metric in self.metrics:
            if metric.name in _PACKAGES:
                scorer = _scorer(_PACKAGES[metric.name])
                scorer.num_refs = self.num_references or -1
                signatures[metric.name] = str(scorer.get_signature())
        return super().described() | {"signatures": signatures}
