"""Scores of texts are those of the packages that the field uses."""

import numpy as np
import pytest

from kd.evaluate import written
from kd.evaluate.written import WrittenText

sacrebleu = pytest.importorskip("sacrebleu")
rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

TEXTS = ["the cat sat on a mat", "hello there my old friend", "nothing alike"]
REFERENCES = [
    ["the cat sat on the mat", "a cat sat on a mat today"],
    ["hello there my friend"],
    ["wholly other words here", "and more", "third of all"],
]


@pytest.fixture
def case():
    kept = np.zeros((3, 2, 5), np.float32)
    labels = np.zeros((3, 2), np.int32)
    return written.joined(kept, TEXTS), written.references(labels, REFERENCES)


def test_scores_of_several_references(case):
    outputs, targets = case
    padded = [[*own, *[None] * (3 - len(own))] for own in REFERENCES]
    streams = [*map(list, zip(*padded, strict=True))]
    for name, metric in (("bleu", "BLEU"), ("chrf", "CHRF"), ("ter", "TER")):
        expected = getattr(sacrebleu.metrics, metric)().corpus_score(TEXTS, streams)
        found = getattr(written, name)(outputs, targets)
        assert found == pytest.approx(expected.score / 100)
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    best = [
        max(scorer.score(one, text)["rougeL"].fmeasure for one in own)
        for text, own in zip(TEXTS, REFERENCES, strict=True)
    ]
    assert written.rouge_l(outputs, targets) == pytest.approx(np.mean(best))


def test_a_text_that_is_its_reference_scores_1(case):
    _, targets = case
    outputs = written.joined(np.zeros((3, 2, 5)), [own[0] for own in REFERENCES])
    assert written.bleu(outputs, targets) == pytest.approx(1)
    assert written.rouge_l(outputs, targets) == pytest.approx(1)
    assert written.ter(outputs, targets) == 0


def test_a_part_of_the_examples_can_be_scored(case):
    outputs, targets = case
    index = np.array([1])
    alone = written.bleu(outputs[index], targets[index])
    expected = sacrebleu.metrics.BLEU().corpus_score(TEXTS[1:2], [REFERENCES[1]])
    assert alone == pytest.approx(expected.score / 100)


def test_the_summary_has_signatures():
    signatures = WrittenText(num_references=0).described()["signatures"]
    assert "nrefs:var|case:mixed" in signatures["bleu"]
    assert f"version:{sacrebleu.__version__}" in signatures["chrf"]
    assert "nrefs:1|" in WrittenText().described()["signatures"]["bleu"]


def test_a_file_of_predictions_gives_them_back(case, tmp_path):
    outputs, targets = case
    arrays = WrittenText().predictions(targets, {"student": outputs})
    np.savez(tmp_path / "all.npz", allow_pickle=False, **arrays)
    with np.load(tmp_path / "all.npz", allow_pickle=False) as read:
        again, found = WrittenText().read_predictions(read)
    np.testing.assert_array_equal(again, targets)
    np.testing.assert_array_equal(found["student"], outputs)
