"""Whole runs of language models, from text to page."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lore import recipe_in
from points import whole_and_resumed

from kd import run
from kd.divergences import KL, PerToken
from kd.errors import UserError
from kd.experiment import Network
from kd.models import saved
from kd.models.gpt2 import GPT2
from kd.networks import answers
from kd.networks.predict import predictor
from kd.objective import CrossEntropy

pytestmark = pytest.mark.slow


@pytest.fixture
def experiment(tmp_path):
    recipe = recipe_in(tmp_path / "data")
    return dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        answers="live",
        student=GPT2(
            num_layers=1, width=8, num_heads=2, mlp_width=16, max_length=32,
            dropout=0.1,
        ),
        objective=0.5 * PerToken(CrossEntropy()) + 0.5 * PerToken(KL()),
    )  # fmt: skip


def test_from_text_to_page(experiment, place):
    summary, page = whole_and_resumed(experiment, place)
    student, teacher = summary["student"], summary["teacher"]
    # 280 tokens at first.
    assert 1 < student["perplexity"] < 150 and 1 < teacher["perplexity"] < 150
    assert student["bits_per_byte"] < 8
    assert 0 <= summary["fidelity"]["agreement"] <= 1 and summary["fidelity"]["kl"] > 0
    assert "What it writes" in page and "How far to trust its confidence" in page
    whole = place.workspace.runs / "whole/0"
    samples = json.loads((whole / "samples.json").read_text())["samples"]
    assert samples and all(
        {"prompt", "reference", "student", "teacher"} == one.keys() for one in samples
    )
    # The network that is saved is the one that was scored, and knows where texts end.
    task, directory = experiment.data, whole / "model"
    corpus = run.read(task, place.workspace)
    data = task.encode(corpus, directory)
    network = saved.read_config(directory).network
    model = task.build(network, vocab_size=data.vocab_size)
    params, _, _ = saved.load(
        directory, network, jax.eval_shape(model.init, jax.random.key(0), {})
    )
    logits = predictor(model, mesh=place.workspace.mesh)(params, data.dev)
    rows = data.dev.inputs(np.arange(len(data.dev)))
    rows = {name: jnp.asarray(values) for name, values in rows.items()}
    kept = np.asarray(task.target.keep(jnp.asarray(logits), rows))
    assert task.target.main.compute(kept, data.dev.labels) == pytest.approx(
        student["perplexity"], rel=1e-5
    )
    assert json.loads((directory / "config.json").read_text())["eos_token_id"] == 0


def test_cached_answers_teach_the_same_while_they_fit(experiment, place, monkeypatch):
    workspace, _ = place
    live = run.run(experiment, "live", workspace)
    cached = dataclasses.replace(experiment, answers="cached")
    found = run.run(cached, "cached", workspace)
    assert found["student"]["perplexity"] == pytest.approx(
        live["student"]["perplexity"], rel=1e-4
    )
    monkeypatch.setattr(answers, "_LARGEST", 1000)
    with pytest.raises(UserError, match=r"cached would keep 2\d\d logits at each of"):
        run.run(cached, "large", run.Workspace(
            workspace.runs, "mini", workspace.mesh, lambda line: None
        ))  # fmt: skip


def test_parts_of_a_batch_weigh_as_the_whole(experiment, place):
    # The last row is short; a mean of means would be another.
    plain = dataclasses.replace(
        experiment,
        student=dataclasses.replace(
            experiment.student, dropout=0.0, embedding_dropout=0.0,
            attention_dropout=0.0,
        ),
        num_steps=6,
    )  # fmt: skip
    whole = run.run(plain, "whole", place.workspace)
    parts = run.run(
        dataclasses.replace(plain, num_microbatches=4), "parts", place.workspace
    )
    assert parts["student"]["nll"] == pytest.approx(whole["student"]["nll"], rel=1e-4)


def test_losses_of_single_predictions_are_refused(experiment):
    with pytest.raises(ValueError, match=r"kl compares one prediction.*PerToken\(KL"):
        dataclasses.replace(experiment, objective=1.0 * KL())


def test_several_teachers_answer_as_one(experiment, place):
    first = experiment.teachers[0].recipe
    second = dataclasses.replace(first, seed=1)
    both = dataclasses.replace(
        experiment, teachers=(Network(recipe=first), Network(recipe=second))
    )
    summary = run.run(both, "both", place.workspace)
    alone = run.run(experiment, "one", place.workspace)
    assert summary["teacher"]["perplexity"] != alone["teacher"]["perplexity"]
    assert summary["fidelity"]["kl"] > 0
