"""Whole runs of networks that write, and that answer with a word."""

import dataclasses
import json

import numpy as np
import pytest
from points import whole_and_resumed

from kd import run
from kd.data.byte_bpe import ByteBPE
from kd.data.parallel import ParallelTask
from kd.data.words import CB_WORDS
from kd.divergences import JS, KL, LabelWords, PerToken, SinKD
from kd.errors import UserError
from kd.evaluate.metric import Metric
from kd.evaluate.written import WrittenText
from kd.experiment import Experiment, Network
from kd.models.gpt2 import GPT2
from kd.models.llama import Llama
from kd.models.t5 import T5
from kd.objective import CrossEntropy
from kd.procedures.sampled_targets import SampledTargets
from kd.train.optimizer import AdamW

pytestmark = pytest.mark.slow


def same(outputs, targets):
    """Words that are those of the reference, without a package."""
    pairs = zip(outputs["text"].tolist(), targets["texts"].tolist(), strict=True)
    return float(np.mean([text.split()[:1] == own.split()[:1] for text, own in pairs]))


SAME = Metric("same", "first word", "that is the reference's", same, percent=True)
LLAMA = Llama(
    num_layers=1, width=16, num_heads=2, num_key_value_heads=1, head_width=8,
    mlp_width=32, max_length=96,
)  # fmt: skip
SMALL = GPT2(num_layers=1, width=8, num_heads=2, mlp_width=16, max_length=96)


def distilled(data, objective):
    recipe = Experiment(
        data=data,
        student=LLAMA,
        objective=1.0 * PerToken(CrossEntropy()),
        optimizer=AdamW(learning_rate=2e-2),
        batch_size=16,
        num_steps=20,
        save_every=6,
        log_every=1,
    )
    return dataclasses.replace(
        recipe,
        student=SMALL,
        teachers=(Network(recipe=recipe),),
        answers="live",
        objective=objective,
    )


@pytest.fixture
def pairs(tmp_path):
    folder = tmp_path / "data/pairs"
    folder.mkdir(parents=True)
    names = {"a": "x", "b": "y", "c": "z"}
    for split, num in (("train", 60), ("val", 12), ("test", 9)):
        lines = ["abc"[i % 3] + " ," * (i % 5) for i in range(num)]
        (folder / f"{split}.en").write_text("".join(f"{x}\n" for x in lines))
        texts = "".join(f"{names[x[0]]} {x[1:]} .\n" for x in lines)
        (folder / f"{split}.de").write_text(texts)
    return ParallelTask(
        name="pairs",
        files=("train", "val", "test"),
        languages=("en", "de"),
        target_format=" {}",
        tokenizer=ByteBPE(size=270),
        widths=(4, 8),
        target_widths=(6, 12),
        target=WrittenText(official=(SAME,)),
        directory=str(tmp_path / "data"),
    )


def test_from_sources_to_page(pairs, place):
    objective = 0.5 * PerToken(CrossEntropy()) + 0.5 * PerToken(KL())
    summary, page = whole_and_resumed(distilled(pairs, objective), place)
    assert summary["data"]["final"] == "test"
    # Two groups of lengths; the outputs of both are of one split.
    assert summary["student"]["perplexity"] < 100
    assert summary["teacher"]["perplexity"] < 100
    assert summary["fidelity"]["kl"] > 0
    assert summary["student"]["best"]["metric"] == "same"
    whole = place.workspace.runs / "whole/0"
    with np.load(whole / "predictions.npz", allow_pickle=False) as arrays:
        targets, outputs = pairs.target.read_predictions(arrays)
    assert pairs.target.main.compute(outputs["student"], targets) == pytest.approx(
        summary["student"]["same"]
    )
    samples = json.loads((whole / "samples.json").read_text())["samples"]
    texts = outputs["teacher"]["text"].tolist()
    assert [sample["teacher"] for sample in samples] == texts
    assert "What it writes" in page


def test_an_encoder_decoder_does_the_same(pairs, place):
    # Only the networks differ; the student learns from a decoder as well.
    t5 = T5(
        num_layers=1, num_decoder_layers=1, width=16, num_heads=2, head_width=8,
        mlp_width=32, dropout=0.0,
    )  # fmt: skip
    experiment = distilled(pairs, 0.5 * PerToken(CrossEntropy()) + 0.5 * PerToken(KL()))
    recipe = experiment.teachers[0].recipe
    assert recipe is not None
    teacher = Network(recipe=dataclasses.replace(recipe, student=t5))
    whole = dataclasses.replace(experiment, student=t5, teachers=(teacher,))
    summary = run.run(whole, "t5", place.workspace)
    assert summary["teacher"]["perplexity"] < 100 and summary["fidelity"]["kl"] > 0
    # On half of the examples, whose rows are of two widths.
    half = dataclasses.replace(pairs, fraction=0.5)
    mixed = dataclasses.replace(experiment, student=t5, data=half)
    summary = run.run(mixed, "mixed", place.workspace)
    assert summary["student"]["perplexity"] < 100
    assert summary["data"]["sample"]["num_examples"] == 30


def test_targets_that_the_networks_write(pairs, place):
    experiment = distilled(pairs, 1.0 * PerToken(JS()))
    sampled = dataclasses.replace(experiment, procedure=SampledTargets(0.5, 0.5))
    summary, _ = whole_and_resumed(sampled, place)
    assert np.isfinite(summary["student"]["perplexity"])


def test_words_answer_a_question(place, tmp_path):
    folder = tmp_path / "data/CB"
    folder.mkdir(parents=True)
    labels = ("entailment", "contradiction", "neutral")
    rows = [
        {"premise": f"p {'abc'[i % 3]}.", "hypothesis": "h", "label": labels[i % 3]}
        for i in range(48)
    ]
    for name in ("train", "val"):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    task = dataclasses.replace(
        CB_WORDS, tokenizer=ByteBPE(size=400), widths=(16, 64),
        directory=str(tmp_path / "data"),
    )  # fmt: skip
    objective = (
        1.0 * PerToken(CrossEntropy())
        + 0.1 * PerToken(KL())
        + 0.8 * LabelWords(PerToken(SinKD()))
    )
    summary, page = whole_and_resumed(distilled(task, objective), place)
    assert summary["task"]["main"] == "macro_f1"
    whole = place.workspace.runs / "whole/0"
    with np.load(whole / "predictions.npz", allow_pickle=False) as arrays:
        classes, outputs = task.target.read_predictions(arrays)
    np.testing.assert_array_equal(classes, np.arange(48) % 3)
    assert outputs["student"].shape == (48, 3)
    right = outputs["student"].argmax(axis=1) == classes
    assert summary["student"]["accuracy"] == pytest.approx(right.mean())
    assert "What the transport plan moves" in page and "contradiction" in page
    assert summary["fidelity"]["kl"] >= 0


def test_another_vocabulary_is_refused(pairs, place):
    experiment = distilled(pairs, 1.0 * PerToken(KL()))
    recipe = experiment.teachers[0].recipe
    assert recipe is not None
    run.run(recipe, "teacher", place.workspace)
    other = dataclasses.replace(pairs, tokenizer=ByteBPE(size=258))
    own = str(place.workspace.runs / "teacher" / "0")
    run.run(dataclasses.replace(recipe, data=other), "other", place.workspace)
    mixed = dataclasses.replace(
        experiment,
        teachers=(Network(place=own),),
        start=Network(place=str(place.workspace.runs / "other" / "0")),
        student=None,
    )
    with pytest.raises(UserError, match=r"its tokenizer.*ULD and MultiLevelOT"):
        run.run(mixed, "mixed", place.workspace)
