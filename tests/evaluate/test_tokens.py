"""Metrics of next tokens against float64 loops, and where their values are known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from kd.evaluate import tokens
from kd.evaluate.tokens import Tokens

B, N, V = 3, 5, 11


@pytest.fixture
def case():
    random = np.random.default_rng(0)
    mask = np.ones((B, N), bool)
    mask[-1, 3:] = False
    labels = np.where(mask, random.integers(0, V, (B, N)), -1).astype(np.int32)
    bytes_of = random.integers(1, 5, V)
    bytes_of[0] = 0
    batch = {
        "labels": labels,
        "prediction_mask": mask,
        "num_bytes": np.where(mask, bytes_of[labels], 0).astype(np.int32),
    }
    student, teacher = random.normal(0, 3, (2, B, N, V)).astype(np.float32)
    batch = {name: jnp.asarray(values) for name, values in batch.items()}
    return jnp.asarray(student), jnp.asarray(teacher), batch


def loop(logits, batch):
    """(log p, token, choice, bytes) of every prediction that counts, in float64."""
    for i in range(B):
        for j in range(N):
            if batch["prediction_mask"][i, j]:
                log_p = log_softmax(np.asarray(logits[i, j], np.float64))
                y, size = (int(batch[name][i, j]) for name in ("labels", "num_bytes"))
                yield log_p[y], y, int(log_p.argmax()), size


def test_scores_are_those_of_a_loop(case):
    student, _, batch = case
    targets, found = (
        np.asarray(batch["labels"]),
        np.asarray(tokens.kept(student, batch)),
    )
    rows = [*loop(student, batch)]
    nats = -np.mean([row[0] for row in rows])
    scores = Tokens().scores(found, targets)
    assert scores["perplexity"] == pytest.approx(math.exp(nats), rel=1e-6)
    assert scores["nll"] == pytest.approx(nats, rel=1e-6)
    text = [row for row in rows if row[3]]
    assert 0 < len(text) < len(rows)
    bits = -sum(row[0] for row in text) / math.log(2) / sum(row[3] for row in text)
    assert scores["bits_per_byte"] == pytest.approx(bits, rel=1e-6)
    right = np.mean([row[1] == row[2] for row in rows])
    assert scores["token_accuracy"] == pytest.approx(right)


def test_bits_per_byte_of_a_known_distribution():
    # Every token is a byte and as likely as any other of 256: 8 bits, ends aside.
    labels = np.arange(256, dtype=np.int32).reshape(2, 128)
    batch = {
        "labels": labels,
        "prediction_mask": np.ones_like(labels, bool),
        "num_bytes": np.ones_like(labels),
    }
    batch = {name: jnp.asarray(values) for name, values in batch.items()}
    found = np.asarray(tokens.kept(jnp.zeros((2, 128, 256)), batch))
    assert tokens.bits_per_byte(found, labels) == pytest.approx(8, rel=1e-7)
    assert tokens.perplexity(found, labels) == pytest.approx(256, rel=1e-6)
    # Tokens of two bytes each: 4 bits a byte.
    batch["num_bytes"] = 2 * batch["num_bytes"]
    found = np.asarray(tokens.kept(jnp.zeros((2, 128, 256)), batch))
    assert tokens.bits_per_byte(found, labels) == pytest.approx(4, rel=1e-7)
    # An end that is never expected costs no bits, as it is no text.
    batch["num_bytes"] = batch["num_bytes"].at[0, 0].set(0)
    logits = jnp.zeros((2, 128, 256)).at[0, 0, 0].set(-30.0)
    found = np.asarray(tokens.kept(logits, batch))
    assert tokens.bits_per_byte(found, labels) == pytest.approx(4, rel=1e-7)
    assert tokens.negative_log_likelihood(found, labels) > math.log(256) + 0.1


def test_fidelity_is_that_of_a_loop(case):
    student, teacher, batch = case
    ours = np.asarray(tokens.kept_beside(student, teacher, batch))
    theirs = np.asarray(tokens.kept(teacher, batch))
    kls, same = [], []
    for i, j in np.argwhere(np.asarray(batch["prediction_mask"])):
        log_p, log_q = (
            log_softmax(np.asarray(x[i, j], np.float64)) for x in (student, teacher)
        )
        kls.append(np.sum(np.exp(log_q) * (log_q - log_p)))
        same.append(log_p.argmax() == log_q.argmax())
    found = Tokens().compare(ours, theirs)
    assert found["kl"] == pytest.approx(np.mean(kls), rel=1e-5)
    assert found["agreement"] == pytest.approx(np.mean(same))
    assert Tokens().compare(np.asarray(tokens.kept(student, batch)), theirs)["kl"] != 0
    # A teacher that rules a token out: 0 log 0 is 0.
    ruled = jnp.asarray(teacher).at[..., 3].set(-jnp.inf)
    assert np.isfinite(np.asarray(tokens.kept_beside(student, ruled, batch))).all()


def test_what_padding_holds_changes_nothing(case):
    student, teacher, batch = case
    other = jnp.where(batch["prediction_mask"][..., None], student, jnp.nan)
    for found in (tokens.kept, lambda x, y: tokens.kept_beside(x, teacher, y)):
        ours, theirs = (
            np.asarray(found(x, batch)) for x in (student, jnp.asarray(other))
        )
        np.testing.assert_array_equal(ours, theirs)


def test_calibration_of_tokens_drawn_from_the_network():
    key = jax.random.key(0)
    logits = 2 * jax.random.normal(key, (64, 256, 8))
    labels = jax.random.categorical(jax.random.fold_in(key, 1), logits)
    batch = {
        "labels": labels,
        "prediction_mask": jnp.ones_like(labels, bool),
        "num_bytes": jnp.ones_like(labels),
    }
    found = np.asarray(tokens.kept(logits, batch))
    assert tokens.expected_calibration_error(found, np.asarray(labels)) < 0.02
    sharper = np.asarray(tokens.kept(2 * logits, batch))
    assert tokens.expected_calibration_error(sharper, np.asarray(labels)) > 0.05


def test_a_file_of_predictions_gives_them_back(case):
    student, teacher, batch = case
    outputs = {
        "student": np.asarray(tokens.kept_beside(student, teacher, batch)),
        "teacher": np.asarray(tokens.kept(teacher, batch)),
    }
    labels = np.asarray(batch["labels"])
    arrays = Tokens().predictions(labels, outputs)
    targets, again = Tokens().read_predictions(arrays)
    np.testing.assert_array_equal(targets, labels)
    assert again.keys() == outputs.keys()
    for name, values in outputs.items():
        np.testing.assert_array_equal(again[name], values)


def test_several_teachers_are_the_mean_of_their_probabilities(case):
    student, teacher, _ = case
    both = Tokens().ensemble([student, teacher])
    mean = (jax.nn.softmax(student) + jax.nn.softmax(teacher)) / 2
    np.testing.assert_allclose(jax.nn.softmax(both), mean, atol=1e-6)


def test_nothing_to_score_is_an_error(case):
    student, _, batch = case
    found = np.asarray(tokens.kept(student, batch))
    with pytest.raises(ValueError, match="there are no predictions"):
        tokens.perplexity(found, np.full((B, N), -1))
    with pytest.raises(ValueError, match="expected 5 numbers for each"):
        tokens.perplexity(found[..., :2], np.asarray(batch["labels"]))
