"""Mixtures of the examples of a batch, against loops over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.views import CutMix, Mixup, TokenMix
from kd.views.mixing import pairs, rectangle


def images(rows=9, masked=2, classes=4):
    random = np.random.default_rng(0)
    return {
        "inputs": jnp.float32(random.normal(size=(rows, 8, 6, 2))),
        "labels": jnp.int32(random.integers(0, classes, rows)),
        "mask": jnp.arange(rows) < rows - masked,
        "index": jnp.arange(rows),
        "teacher_logits": jnp.float32(random.normal(size=(rows, classes))),
        "teacher_logits_1": jnp.float32(random.normal(size=(rows, classes))),
    }


def sentences(lengths=(8, 3, 2, 12, 5, 9, 7, 6), masked=2):
    """[CLS] 1, [SEP] 2, tokens of row i 100 i, 100 i + 1, ..."""
    rows, width = len(lengths), max(lengths)
    tokens = np.zeros((rows, width), np.int32)
    for i, length in enumerate(lengths):
        tokens[i, :length] = 100 * (i + 1) + np.arange(length)
        tokens[i, [0, length - 1]] = 1, 2
    return {
        "tokens": jnp.array(tokens),
        "token_mask": jnp.arange(width) < jnp.array(lengths)[:, None],
        "labels": jnp.arange(rows),
        "mask": jnp.arange(rows) < rows - masked,
    }


@pytest.mark.parametrize("num", [0, 1, 2, 3, 8])
def test_pairs_are_one_cycle_through_the_examples(num):
    seen = set()
    for seed in range(20):
        where = jnp.arange(8) < num
        other = np.asarray(jax.jit(pairs)(jax.random.key(seed), where))
        assert (other[num:] == np.arange(num, 8)).all()
        place, visited = 0, []
        for _ in range(num):
            visited.append(place)
            place = other[place]
        assert sorted(visited) == [*range(num)]
        seen.add(tuple(other))
    assert len(seen) == {0: 1, 1: 1, 2: 1, 3: 2}.get(num, 20)


def test_pairs_are_among_the_unmasked_wherever_they_are():
    where = jnp.array([True, False, True, False, True])
    other = np.asarray(pairs(jax.random.key(0), where))
    assert sorted(other[[0, 2, 4]]) == [0, 2, 4] and (other[[1, 3]] == [1, 3]).all()


def found_pairs(batch, viewed):
    """Whose label every example got: they are all different in these tests."""
    labels = np.asarray(batch["labels"])
    return np.array([np.flatnonzero(labels == y)[0] for y in viewed["mixed_labels"]])


def unlike(batch):
    return batch | {"labels": jnp.arange(len(batch["mask"]))}


def test_mixup_is_its_formula(key):
    batch = unlike(images())
    viewed = jax.jit(Mixup(answers="interpolated"))(key, batch)
    share = float(viewed["label_weight"][0])
    assert 0 < share < 1
    other = found_pairs(batch, viewed)
    assert viewed.keys() == batch.keys() | {
        "label_weight", "mixed_labels", "mixed_label_weight",
    }  # fmt: skip
    for i in range(7):
        for name in ("inputs", "teacher_logits", "teacher_logits_1"):
            ours, theirs = (np.float64(batch[name][j]) for j in (i, other[i]))
            expected = share * ours + (1 - share) * theirs
            np.testing.assert_allclose(viewed[name][i], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(viewed["label_weight"][i], share)
        np.testing.assert_allclose(
            viewed["mixed_label_weight"][i], 1 - share, rtol=1e-6
        )
    for name in ("labels", "mask", "index"):
        np.testing.assert_array_equal(viewed[name], batch[name])


@pytest.mark.parametrize("view", [Mixup(), CutMix()])
def test_answers_to_the_batch_as_it_was_are_left_out(view, key):
    assert not view.changes_answers
    viewed = view(key, images())
    assert not any(name.startswith("teacher_logits") for name in viewed)


def test_the_share_is_of_a_beta_distribution():
    batch = images()
    draw = jax.jit(jax.vmap(lambda key: Mixup(0.4)(key, batch)["label_weight"][0]))
    shares = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
    # Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1)).
    assert abs(shares.mean() - 0.5) < 4 * np.sqrt(shares.var() / 4000)
    np.testing.assert_allclose(shares.var(), 1 / (4 * 1.8), rtol=0.05)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.4, 0.99, 1.0])
def test_a_rectangle_has_its_share_and_ends_with_the_image(share):
    height, width = 8, 6
    halves = [int(np.sqrt(np.float32(1 - share)) * size) // 2 for size in (8, 6)]
    drawn = jnp.float32(share)
    found = jax.jit(jax.vmap(lambda key: rectangle(key, height, width, drawn)))(
        jax.random.split(jax.random.key(0), 300)
    )
    expected = set()
    for y in range(height):
        for x in range(width):
            inside = np.zeros((height, width), bool)
            top, left = max(y - halves[0], 0), max(x - halves[1], 0)
            inside[top : y + halves[0], left : x + halves[1]] = True
            expected.add(inside.tobytes())
    assert {np.asarray(one).tobytes() for one in found} == expected


def test_cutmix_pastes_and_counts_pixels(key):
    batch = unlike(images())
    viewed = jax.jit(CutMix(answers="interpolated"))(key, batch)
    other = found_pairs(batch, viewed)
    inside = np.asarray(viewed["inputs"] != batch["inputs"])[0, :, :, 0]
    assert 0 < inside.sum() < inside.size
    share = 1 - inside.mean()
    for i in range(7):
        expected = np.where(
            inside[..., None], batch["inputs"][other[i]], batch["inputs"][i]
        )
        np.testing.assert_array_equal(viewed["inputs"][i], expected)
        np.testing.assert_allclose(viewed["label_weight"][i], share, rtol=1e-6)
        answers = batch["teacher_logits"]
        expected = share * answers[i] + (1 - share) * answers[other[i]]
        np.testing.assert_allclose(viewed["teacher_logits"][i], expected, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_token_mix_exchanges_a_span(seed):
    batch = sentences()
    # At 0.5 that lambda is near 0 or 1 half of the time.
    viewed = jax.jit(TokenMix(0.5))(jax.random.key(seed), batch)
    other = np.asarray(viewed["mixed_labels"])
    before, after = np.asarray(batch["tokens"]), np.asarray(viewed["tokens"])
    lengths = np.asarray(batch["token_mask"]).sum(axis=1)
    shares = []
    for i in range(6):
        ours, theirs = lengths[i] - 2, lengths[other[i]] - 2
        changed = np.flatnonzero(before[i] != after[i])
        if len(changed):
            # One span of inner tokens for one of the other's, in their order.
            assert (np.diff(changed) == 1).all()
            assert changed[0] >= 1 and changed[-1] <= lengths[i] - 2
            assert (np.diff(after[i][changed]) == 1).all()
            inner = before[other[i]][1 : lengths[other[i]] - 1]
            assert np.isin(after[i][changed], inner).all()
        own = 1 - len(changed) / max(ours, 1)
        np.testing.assert_allclose(viewed["label_weight"][i], own, rtol=1e-6)
        np.testing.assert_allclose(viewed["mixed_label_weight"][i], 1 - own, atol=1e-6)
        if 0 < len(changed) < theirs:
            # Of these the share is what was drawn, rounded to tokens.
            shares.append((own - 0.5 / ours, own + 0.5 / ours))
    if shares:
        lowest, highest = np.max(shares, axis=0)[0], np.min(shares, axis=0)[1]
        assert lowest <= highest + 1e-6
    np.testing.assert_array_equal(viewed["token_mask"], batch["token_mask"])


def test_spans_lie_anywhere():
    batch = sentences((6, 7), masked=0)
    view = jax.jit(lambda key: TokenMix()(key, batch)["tokens"])
    found = np.stack([view(key) for key in jax.random.split(jax.random.key(0), 200)])
    changed = found[:, 0] != np.asarray(batch["tokens"][0])
    assert changed[:, 1:5].any(axis=0).all() and not changed[:, [0, 5, 6]].any()
    theirs = set(found[:, 0].ravel().tolist()) & set(range(200, 210))
    assert theirs == {201, 202, 203, 204, 205}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("view", "batch"),
    [
        (Mixup(answers="interpolated"), images()),
        (CutMix(answers="interpolated"), images()),
        (TokenMix(), sentences()),
    ],
    ids=["mixup", "cutmix", "tokens"],
)
def test_masked_rows_are_as_if_they_were_not_there(view, batch, key):
    num = int(batch["mask"].sum())
    whole = jax.jit(view)(key, batch)
    alone = jax.jit(view)(key, {name: rows[:num] for name, rows in batch.items()})
    for name, rows in alone.items():
        np.testing.assert_array_equal(whole[name][:num], rows, err_msg=name)
    np.testing.assert_array_equal(whole["mask"], batch["mask"])


@pytest.mark.parametrize("view", [Mixup(0.0), CutMix(0.0)])
def test_alpha_of_zero_mixes_nothing(view, key):
    batch = images()
    viewed = view(key, batch)
    np.testing.assert_array_equal(viewed["inputs"], batch["inputs"])
    assert (viewed["label_weight"] == 1).all()
    assert (viewed["mixed_label_weight"] == 0).all()


@pytest.mark.parametrize(
    ("view", "batch"), [(Mixup(), images()), (TokenMix(), sentences())]
)
def test_hidden_labels_count_for_nothing_and_the_others_for_the_batch(view, batch, key):
    num = int(batch["mask"].sum())
    labelled = np.asarray(batch["mask"]) & (np.arange(len(batch["mask"])) % 3 > 0)
    weight = labelled * num / labelled.sum()
    hidden = batch | {
        "labels": jnp.where(labelled, batch["labels"], -1),
        "label_weight": jnp.float32(weight),
    }
    viewed = jax.jit(view)(key, hidden)
    ours, theirs = viewed["label_weight"], viewed["mixed_label_weight"]
    assert (ours[viewed["labels"] < 0] == 0).all()
    assert (theirs[viewed["mixed_labels"] < 0] == 0).all()
    np.testing.assert_allclose((ours + theirs)[:num].sum(), num, rtol=1e-5)
    assert theirs[:num].max() > 0


def test_what_is_out_of_range_is_refused():
    for alpha in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="alpha must be at least 0 and finite"):
            Mixup(alpha)
