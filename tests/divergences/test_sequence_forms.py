"""SinKD on the predictions of sequences: the authors' forms, and those they meant."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from kd.divergences import (
    DKD,
    KL,
    LabelWords,
    PerSequence,
    PerToken,
    SinKD,
    SinKDOfT0Script,
)
from kd.objective import CrossEntropy, Loss, masked_mean
from kd.types import Outputs

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
TOKENS = np.load(GOLDEN / "sinkd_gptneo_2d.npz")
T0 = np.load(GOLDEN / "sinkd_t0_3d_quirk.npz")
BATCHWISE = np.load(GOLDEN / "sinkd_batchwise_glue.npz")

FAITHFUL = SinKD(convention="faithful")
# The code for language models has the factor 0.0008 where that for GLUE has 0.001.
LANGUAGE_MODEL = 0.8


@functools.partial(jax.jit, static_argnums=0)
def apply(loss, student, teacher, batch):
    return loss.per_example((), Outputs(student), Outputs(teacher), batch)


def check(loss, student, expected, expected_gradient):
    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(student))
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    largest = np.abs(expected_gradient).max()
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-12 * largest)


def padded(rows, kept, filling=np.nan):
    """Rows laid out over the places that count, the others unusable."""
    everywhere = np.full((*kept.shape, rows.shape[-1]), filling)
    everywhere[kept] = rows
    return everywhere


# --- all tokens at once -----------------------------------------------------------

KEPT = np.arange(6) < np.array([[3], [0], [6], [1]])
BATCH = {
    "mask": jnp.array([True, False, True, True]),
    "prediction_mask": jnp.asarray(KEPT).at[1, 2].set(True),
}


def test_tokens_are_rows(x64):
    teacher = jnp.asarray(padded(TOKENS["teacher_logits"], KEPT))

    def loss(student):
        losses = apply(PerToken(FAITHFUL), student, teacher, BATCH)
        return LANGUAGE_MODEL * masked_mean(losses, BATCH["mask"])

    check(
        loss,
        padded(TOKENS["student_logits"], KEPT),
        TOKENS["loss"],
        padded(TOKENS["grad_student_logits"], KEPT, 0.0),
    )


def test_label_words_are_all_the_classes_there_are(x64):
    random = np.random.default_rng(0)
    ids = random.permutation(40)[:32]

    def in_vocabulary(rows, filling):
        logits = np.broadcast_to(filling, (len(rows), 40)).copy()
        logits[:, ids] = rows
        return logits

    noise = random.normal(size=(10, 40))
    teacher = jnp.asarray(in_vocabulary(TOKENS["teacher_logits"], noise))
    words = LabelWords(FAITHFUL, tuple(ids.tolist()))
    batch = {"mask": jnp.ones(10, bool)}
    check(
        lambda s: LANGUAGE_MODEL * apply(words, s, teacher, batch).mean(),
        in_vocabulary(TOKENS["student_logits"], -noise),
        TOKENS["loss"],
        in_vocabulary(TOKENS["grad_student_logits"], 0.0),
    )


def test_label_words_of_two_vocabularies_and_their_labels(key):
    random = np.random.default_rng(1)
    student, teacher = random.normal(size=(4, 7)), random.normal(size=(4, 9))
    student, teacher = jnp.float32(student), jnp.float32(teacher)
    labels = jnp.array([5, 0, 3, 5])
    batch = {"mask": jnp.array([True, True, True, False]), "labels": labels}
    classes, mine, theirs = jnp.array([1, 0, 2, 1]), (0, 5, 3), (8, 2, 4)
    for loss in (DKD(), CrossEntropy()):
        words = LabelWords(loss, mine, theirs)
        losses = apply(words, student, teacher, batch)
        expected = apply(
            loss, student[:, mine], teacher[:, theirs], batch | {"labels": classes}
        )
        np.testing.assert_array_equal(losses, expected)
        assert words.name == loss.name and words.needs_teacher == loss.needs_teacher
    ours, theirs = jax.eval_shape(lambda: (Outputs(student), Outputs(teacher)))
    assert words.init(key, ours, theirs) == ()
    batch = batch | {"labels": labels.at[0].set(6)}
    assert np.isnan(apply(words, student, teacher, batch)[0])


def test_label_words_may_come_with_the_batch(key):
    random = np.random.default_rng(2)
    student, teacher = jnp.float32(random.normal(size=(2, 4, 3, 9)))
    ids = (5, 0, 7)
    batch = {
        "mask": jnp.array([True, True, True, False]),
        "prediction_mask": jnp.ones((4, 3), bool).at[1, 2].set(False),
        "labels": jnp.asarray(random.choice(ids, (4, 3))),
    }
    words = {"label_words": jnp.tile(jnp.array(ids), (4, 1))}
    for loss in (PerToken(SinKD()), PerToken(KL()), PerToken(CrossEntropy())):
        told, known = LabelWords(loss), LabelWords(loss, ids)
        np.testing.assert_array_equal(
            apply(told, student, teacher, batch | words),
            apply(known, student, teacher, batch),
        )
        ours, theirs = jax.eval_shape(lambda: (Outputs(student), Outputs(teacher)))
        assert told.init(key, ours, theirs) == ()


def test_words_that_cannot_be_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for ids in ((), (1, 1), (-1, 2)):
        with pytest.raises(ValueError, match="different numbers from 0 on"):
            LabelWords(KL(), ids)
    with pytest.raises(ValueError, match="2 token_ids need as many"):
        LabelWords(KL(), (0, 1), (0, 1, 2))
    logits, batch = jnp.zeros((2, 5)), {"mask": jnp.ones(2, bool)}
    with pytest.raises(ValueError, match="token 5 is beyond the student's vocabulary"):
        apply(LabelWords(KL(), (0, 5)), logits, logits, batch)
    with pytest.raises(ValueError, match="beyond the teacher's vocabulary of 5"):
        apply(LabelWords(KL(), (0, 1), (0, 7)), logits, logits, batch)


# --- a plan for every sequence ----------------------------------------------------

CASES = ("b16c2", "b32c2")
LENGTHS = np.array([16, 32, 0])
SEQUENCES = {
    "mask": jnp.array([True, True, False]),
    "prediction_mask": jnp.arange(32) < jnp.array([[16], [32], [8]]),
}


def golden_sequences(name):
    kept = np.arange(32) < LENGTHS[:, None]
    rows = np.concatenate([BATCHWISE[f"{case}/{name}"] for case in CASES])
    return padded(rows, kept, 0.0 if name.startswith("grad") else np.nan)


def test_every_sequence_has_a_plan_of_its_own(x64):
    student, teacher = (
        jnp.asarray(golden_sequences(f"{side}_logits"))
        for side in ("student", "teacher")
    )
    expected = np.array([BATCHWISE[f"{case}/loss"] for case in CASES] + [0])
    weights = np.array([1.0, 2.0, 3.0])  # tells sequences apart
    check(
        lambda s: apply(PerSequence(FAITHFUL), s, teacher, SEQUENCES) @ weights,
        student,
        expected @ weights,
        golden_sequences("grad_student_logits") * weights[:, None, None],
    )
    # Another way to say it, where the number of sequences is known.
    student, teacher = jnp.nan_to_num(student[1:]), jnp.nan_to_num(teacher[1:])
    batch = {name: entry[1:] for name, entry in SEQUENCES.items()}
    grouped = PerToken(SinKD(num_groups=2), average="sequences")
    np.testing.assert_allclose(
        apply(PerSequence(SinKD()), student, teacher, batch),
        apply(grouped, student, teacher, batch),
        rtol=1e-12,
    )


@pytest.mark.parametrize("loss", [KL(), DKD(), CrossEntropy()])
def test_losses_of_single_rows_are_what_they_are_per_token(loss, key):
    student, teacher = jnp.float32(np.random.default_rng(2).normal(size=(2, 4, 6, 5)))
    batch = BATCH | {"labels": jnp.arange(24).reshape(4, 6) % 5}
    np.testing.assert_allclose(
        apply(PerSequence(loss), student, teacher, batch),
        apply(PerToken(loss, average="sequences"), student, teacher, batch),
        rtol=1e-6,
    )
    each = PerSequence(loss)
    assert each.name == loss.name and each.needs_teacher == loss.needs_teacher
    assert each.init(key, *jax.eval_shape(lambda: (Outputs(student),) * 2)) == ()


class Counting(Loss):
    """Tells how many rows and classes it has been shown."""

    name = "counting"

    def per_example(self, params, student, teacher, batch):
        return jnp.where(batch["mask"], 1.0, 0.0)

    def per_example_with_metrics(self, params, student, teacher, batch):
        rows = jnp.sum(batch["mask"])
        metrics = {"rows": rows, "classes": jnp.int32(student.logits.shape[-1])}
        return self.per_example(params, student, teacher, batch), metrics


def test_metrics_are_means_over_the_sequences_that_have_tokens():
    logits = jnp.zeros((4, 6, 5))
    loss = PerSequence(LabelWords(Counting(), (3, 1)))
    outputs = Outputs(logits), Outputs(logits)
    losses, metrics = loss.per_example_with_metrics((), *outputs, BATCH)
    np.testing.assert_array_equal(losses, [1, 0, 1, 1])
    np.testing.assert_allclose(metrics["rows"], (3 + 6 + 1) / 3, rtol=1e-6)
    assert metrics["classes"] == 2


# --- the script for T0 ------------------------------------------------------------


@pytest.mark.parametrize("case", ["b4l3v11", "b2l5v7"])
def test_script_for_t0(case, x64):
    teacher = jnp.asarray(T0[f"{case}/teacher_logits"])
    student = T0[f"{case}/student_logits"]
    expected, gradient = T0[f"{case}/loss"], T0[f"{case}/grad_student_logits"]
    loss = SinKDOfT0Script()
    check(lambda s: loss(s, teacher).mean(), student, expected, gradient)

    # With one more example that is masked.
    more = jnp.full((1, *teacher.shape[1:]), jnp.nan)
    teacher = jnp.concatenate([teacher, more])
    kept = jnp.arange(len(teacher)) < len(student)
    check(
        lambda s: masked_mean(apply(loss, s, teacher, {"mask": kept}), kept),
        np.concatenate([student, more]),
        expected,
        np.concatenate([gradient, np.zeros_like(more)]),
    )


def test_script_for_t0_says_nothing_of_answers_of_one_token():
    student, teacher = jnp.float32(np.random.default_rng(3).normal(size=(2, 4, 1, 5)))
    assert not SinKDOfT0Script()(student, teacher).any()


def test_script_for_t0_refuses_what_are_not_sequences(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for other in ((2, 3, 5), (2, 4)):
        with pytest.raises(ValueError, match=r"two \[b, n, v\] arrays of logits"):
            SinKDOfT0Script()(jnp.zeros((2, 4)), jnp.zeros(other))
