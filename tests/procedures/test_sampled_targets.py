"""Targets written by the networks: which, and that a step is that on these texts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd.data.glue import SST2
from kd.data.parallel import MULTI30K
from kd.divergences import JS, KL, PerToken
from kd.experiment import Experiment, Network
from kd.models.after_sources import after_sources
from kd.models.bert import Bert
from kd.models.generate import Greedy, generate
from kd.models.gpt2 import GPT2
from kd.models.sample import Sample
from kd.objective import CrossEntropy
from kd.procedures.offline import Offline
from kd.procedures.procedure import Setting
from kd.procedures.sampled_targets import SampledTargets
from kd.train.optimizer import AdamW

SIZES = {"vocab_size": 7, "num_layers": 1, "num_heads": 2, "mlp_width": 16}
DROPOUTS = {"dropout": 0.0, "embedding_dropout": 0.0, "attention_dropout": 0.0}
STUDENT, TEACHER = (
    after_sources(GPT2(**SIZES, width=width, max_length=16, **DROPOUTS).build())
    for width in (8, 12)
)
ROWS, WIDTH = 8, 5
OBJECTIVE = 0.5 * PerToken(CrossEntropy()) + 0.5 * PerToken(KL())


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    targets = random.integers(3, 7, (ROWS, WIDTH))
    there = np.arange(WIDTH) < random.integers(1, WIDTH + 1, ROWS)[:, None]
    return {
        "tokens": jnp.asarray(random.integers(3, 7, (ROWS, 3))),
        "token_mask": jnp.ones((ROWS, 3), bool),
        "target_tokens": jnp.asarray(np.where(there, targets, 0)),
        "target_mask": jnp.asarray(there),
        "labels": jnp.asarray(np.where(there, targets, -1)),
        "prediction_mask": jnp.asarray(there),
        "mask": jnp.arange(ROWS) < ROWS - 1,
    }


def params_of(model, seed):
    return jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(seed), {}))


def one_step(procedure, batch, end):
    """The student's parameters after a step of plain gradient descent."""
    setting = Setting(
        {"student": STUDENT}, (TEACHER,), OBJECTIVE, optax.sgd(0.1), end=end
    )
    training = procedure.build(setting)
    theirs = (params_of(TEACHER, 1),)
    first = {"student": params_of(STUDENT, 0)}
    state = training.init(jax.random.key(2), first, theirs, batch)
    state, metrics = training.step(state, theirs, batch)
    return state.params["student"], metrics


def written(model, params, batch, end=()):
    found = generate(
        model, params, batch, jax.random.key(0), Greedy(), num_tokens=WIDTH, end=end
    )
    there = found.token_mask
    return batch | {
        "target_tokens": found.tokens,
        "target_mask": there,
        "labels": jnp.where(there, found.tokens, -1),
        "prediction_mask": there,
    }


@pytest.mark.slow
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_step_is_that_on_what_was_written(batch, who):
    model, seed = (STUDENT, 0) if who == "student" else (TEACHER, 1)
    # What it writes second in a row ends texts: some do.
    free = written(model, params_of(model, seed), batch)
    end = (int(free["target_tokens"][0, 1]),)
    drawn = written(model, params_of(model, seed), batch, end)
    lengths = np.asarray(drawn["target_mask"].sum(axis=1))
    assert lengths.min() < WIDTH  # Some texts end.
    shares = {"from_student": 0.0, "from_teacher": 0.0} | {f"from_{who}": 1.0}
    ours, told = one_step(SampledTargets(**shares, how=Greedy()), batch, end)
    theirs, expected = one_step(Offline(), drawn, end)
    np.testing.assert_allclose(told["loss"], expected["loss"], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        ours, theirs,
    )  # fmt: skip
    of_data, _ = one_step(Offline(), batch, end)
    assert not all(
        np.allclose(a, b, atol=1e-4)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(of_data), strict=True)
    )


@pytest.mark.slow
def test_what_is_drawn_changes_from_step_to_step(batch):
    setting = Setting(
        {"student": STUDENT}, (TEACHER,), OBJECTIVE, optax.sgd(0.0), end=(2,)
    )
    training = SampledTargets(0.5, 0.25, how=Sample()).build(setting)
    theirs = (params_of(TEACHER, 1),)

    def begun():
        first = {"student": params_of(STUDENT, 0)}
        return training.init(jax.random.key(2), first, theirs, batch)

    state, losses = begun(), []
    for _ in range(3):
        state, metrics = training.step(state, theirs, batch)
        losses.append(float(metrics["loss"]))
    assert len({round(loss, 6) for loss in losses}) == 3
    # And is a function of key and step.
    _, metrics = training.step(begun(), theirs, batch)
    assert float(metrics["loss"]) == losses[0]


@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.7, 0.7), (-0.1, 0.5)])
def test_shares_that_are_none(shares):
    with pytest.raises(ValueError, match="must be shares, not both 0"):
        SampledTargets(*shares)


def test_experiments_that_it_is_not_for():
    experiment = Experiment(
        data=dataclasses.replace(MULTI30K, widths=(4, 8), target_widths=(4, 8)),
        student=GPT2(max_length=16),
        teachers=(Network(place="gpt2"),),
        answers="live",
        objective=1.0 * PerToken(JS()),
        optimizer=AdamW(),
        num_steps=1,
        procedure=SampledTargets(0.5, 0.5),
    )
    cases: Any = (
        ({"answers": "cached"}, "not yet written; set answers=live"),
        ({"num_microbatches": 2}, "num_microbatches must be 1"),
        (
            {"teachers": 2 * experiment.teachers},
            "the only teacher write",
        ),
        (
            {"data": SST2, "student": Bert.tiny(), "objective": 1.0 * JS()},
            "SampledTargets has texts written about sources, and SST-2 has none",
        ),
    )
    for fields, message in cases:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(experiment, **fields)


@pytest.mark.parametrize(
    ("shares", "asks"), [((0.0, 1.0), True), ((0.5, 0.5), True), ((1.0, 0.0), False)]
)
def test_a_teacher_that_writes_is_asked_whatever_losses_read(shares, asks):
    """SeqKD learns by cross-entropy alone, which needs no teacher."""
    experiment = Experiment(
        data=dataclasses.replace(MULTI30K, widths=(4, 8), target_widths=(4, 8)),
        student=GPT2(max_length=16),
        teachers=(Network(place="gpt2"),),
        answers="live",
        objective=1.0 * PerToken(CrossEntropy()),
        optimizer=AdamW(),
        num_steps=1,
        procedure=SampledTargets(*shares),
    )
    assert experiment.asks_teachers == asks
