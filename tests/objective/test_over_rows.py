"""Training steps of a language model without all of its logits."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kd.divergences.batch_transport
import kd.divergences.decoupled
import kd.objective.mix
from kd.divergences import ATKD, DIST, JS, KL, PerSequence, PerToken, SinKD
from kd.models.gpt2 import GPT2
from kd.objective import CrossEntropy
from kd.objective.told import Logits, decisions
from kd.procedures.offline import Offline
from kd.procedures.procedure import Setting
from kd.scheduled import scheduled
from kd.train.mesh import data_mesh, replicate, shard_batch
from kd.transport.cost import Cosine

SEQUENCES, LENGTH, TOKENS = 8, 12, 301
SIZES = {"vocab_size": 320, "num_layers": 1, "num_heads": 2, "max_length": LENGTH}
OBJECTIVE = 0.4 * PerToken(CrossEntropy()) + 0.6 * PerToken(KL(temperature=2.0))
COUPLED = OBJECTIVE + 0.8 * PerToken(SinKD()) + 0.5 * PerToken(ATKD())


def problem():
    """Student, teacher, and a batch with padding, prompts and a masked sequence."""
    student = GPT2(width=8, mlp_width=16, **SIZES).build(TOKENS)
    teacher = GPT2(width=12, mlp_width=16, **SIZES).build(TOKENS)
    random = np.random.default_rng(0)
    shape = (SEQUENCES, LENGTH)
    token_mask = np.arange(LENGTH) < random.integers(4, LENGTH + 1, (SEQUENCES, 1))
    batch = {
        "tokens": random.integers(TOKENS, size=shape).astype(np.int32),
        "token_mask": token_mask,
        "labels": np.where(token_mask, random.integers(TOKENS, size=shape), -100),
        "prediction_mask": token_mask & (np.arange(LENGTH) > 1),
        "mask": np.arange(SEQUENCES) != 5,
    }
    return student, teacher, jax.tree.map(jnp.asarray, batch)


def training(objective, mesh=None, **changes):
    """A compiled step, and what it takes."""
    student, teacher, batch = problem()
    key = jax.random.key(0)
    setting = Setting(
        {"student": student},
        (teacher,),
        objective,
        optax.sgd(0.5),
        mesh=mesh,
        **changes,
    )
    of_teacher = (teacher.init(jax.random.key(1), batch),)
    run = Offline().build(setting)
    state = run.init(key, {"student": student.init(key, batch)}, of_teacher, batch)
    if mesh is not None:
        state, of_teacher = replicate(state, mesh), replicate(of_teacher, mesh)
        batch = shard_batch(batch, mesh)
    return run.step, (state, of_teacher, batch)


@pytest.fixture
def few_rows(monkeypatch):
    """Any vocabulary is large; 5 rows of logits, or 64 classes, are there at once."""
    monkeypatch.setattr(kd.objective.mix, "large", lambda head: True)
    for module in (kd.objective.mix, kd.divergences.decoupled):
        monkeypatch.setattr(module, "rows_at_once", lambda num_outputs: 5)
    monkeypatch.setattr(
        kd.divergences.batch_transport, "classes_at_once", lambda num_rows: 64
    )


def after(objective, **changes):
    step, given = training(objective, **changes)
    state, metrics = step(*given)
    return jax.device_get((state.params, metrics))


def assert_same(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def decreasing(step):
    return 3.0 - step


OBJECTIVES = {
    "two terms": OBJECTIVE,
    "a scheduled weight": OBJECTIVE + (lambda step: 0.3 + step) * PerToken(JS()),
    "a scheduled setting": 1.0
    * scheduled(PerToken(KL()), **{"loss.temperature": decreasing}),
    "one inside": 1.0 * PerToken(scheduled(KL(), temperature=decreasing)),
    "every sequence the same": 1.0 * PerToken(KL(), average="sequences"),
    "labels alone": 1.0 * PerToken(CrossEntropy()),
    "two that couple rows": COUPLED,
    "nothing but one of them": 1.0 * PerToken(SinKD(), average="sequences"),
    "a setting of one": 1.0
    * scheduled(PerToken(SinKD()), **{"loss.temperature": decreasing}),
}


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_a_step_is_that_with_all_logits(objective, num_microbatches, request):
    expected = after(objective, num_microbatches=num_microbatches)
    request.getfixturevalue("few_rows")
    found = after(objective, num_microbatches=num_microbatches)
    assert_same(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [OBJECTIVE, COUPLED])
def test_on_four_devices(objective, request):
    expected = after(objective)
    request.getfixturevalue("few_rows")
    mesh = data_mesh()
    assert mesh.size == 4
    assert_same(after(objective, mesh=mesh), expected, rtol=2e-5, atol=2e-6)


def largest(objective, **changes):
    """Numbers in the largest array of floats in the compiled step."""
    step, given = training(objective, **changes)
    lowered = step.lower(*given)  # pyrefly: ignore[missing-attribute]
    text = lowered.compile().as_text() or ""
    shapes = re.findall(r"f32\[([\d,]+)\]", text)
    return max(np.prod([int(n) for n in shape.split(",")]) for shape in shapes)


ALL_LOGITS = SEQUENCES * LENGTH * TOKENS


@pytest.mark.slow
@pytest.mark.parametrize("objective", [OBJECTIVE, COUPLED])
def test_no_array_of_all_logits_is_in_the_step(objective, few_rows):
    assert largest(objective) < ALL_LOGITS


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [PerToken(SinKD(cost=Cosine())), PerToken(DIST()), PerSequence(JS())],
    ids=str,
)
def test_a_loss_that_needs_all_logits_gets_them(other, few_rows):
    assert largest(OBJECTIVE + 1.0 * other) >= ALL_LOGITS


@pytest.mark.slow
def test_terms_have_gradients_of_their_own_where_these_are_watched(request):
    expected = after(OBJECTIVE, term_gradients="watched")
    request.getfixturevalue("few_rows")
    found = after(OBJECTIVE, term_gradients="watched")
    assert found[1]["gradient/kl"] > 0
    assert_same(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
def test_a_small_vocabulary_has_all_its_logits():
    assert largest(OBJECTIVE) >= ALL_LOGITS
    assert jnp.isfinite(after(OBJECTIVE)[1]["loss"])


@pytest.mark.parametrize(
    ("objective", "changes", "expected"),
    [
        (OBJECTIVE, {}, Logits(SEQUENCES * LENGTH, TOKENS, 5)),
        (OBJECTIVE, {"num_microbatches": 2}, Logits(48, TOKENS, 5)),
        (
            OBJECTIVE + PerToken(SinKD(num_iters=2)), {},
            Logits(SEQUENCES * LENGTH, TOKENS, 5),
        ),
        (
            OBJECTIVE + PerToken(SinKD(cost=Cosine(), num_iters=2)), {},
            Logits(SEQUENCES * LENGTH, TOKENS, 0, "sinkd"),
        ),
        (
            OBJECTIVE, {"term_gradients": "watched"},
            Logits(SEQUENCES * LENGTH, TOKENS, 0, "term_gradients"),
        ),
    ],
)  # fmt: skip
def test_what_is_decided_is_told(few_rows, objective, changes, expected):
    step, given = training(objective, **changes)
    with decisions() as found:
        jax.eval_shape(step, *given)
    assert {*found} == {expected}
    assert expected.num_bytes == 4 * expected.num_rows * TOKENS


def test_nothing_is_told_where_there_is_little():
    step, given = training(OBJECTIVE)
    with decisions() as found:
        jax.eval_shape(step, *given)
    assert found == []
