import dataclasses

import numpy as np
import pytest

from kd.data.pipeline import TrainingBatches, collate, plan_epoch
from kd.data.text import Encoded

WIDTHS = (4, 8, 16)


@pytest.fixture
def split():
    random = np.random.default_rng(0)
    lengths = random.integers(2, 17, 103)
    total = lengths.sum()
    return Encoded(
        tokens=random.integers(1, 50, total).astype(np.int32),
        segments=np.zeros(total, np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=random.integers(0, 2, 103).astype(np.int32),
        paired=False,
        widths=WIDTHS,
    )


def plan(split, seed=1, epoch=0, batch_size=10):
    return plan_epoch(split.groups, batch_size=batch_size, seed=seed, epoch=epoch)


def test_an_epoch_has_every_example_once_and_where_it_fits(split):
    batches = plan(split)
    assert sorted(np.concatenate(batches)) == list(range(103))
    for index in batches:
        width = split.inputs(index)["tokens"].shape[1]
        for length in split.lengths[index]:
            assert width == min(w for w in WIDTHS if w >= length)
        assert len(index) <= 10


def test_an_epoch_is_a_function_of_seed_and_epoch(split):
    def flat(batches):
        return np.concatenate(batches).tolist()

    assert flat(plan(split)) == flat(plan(split))
    assert flat(plan(split, epoch=1)) != flat(plan(split))
    assert flat(plan(split, seed=2)) != flat(plan(split))
    assert len(plan(split, seed=2, epoch=7)) == len(plan(split))


def test_too_long_an_example_is_refused(split):
    with pytest.raises(ValueError, match="longer than the largest width, 8"):
        _ = dataclasses.replace(split, widths=(4, 8)).groups


def test_collate_pads_and_masks(split):
    (short, *_) = [index for index in plan(split) if len(index) < 10]
    batch = collate(split, short, rows=12)
    n = len(short)
    width = WIDTHS[split.groups[short[0]]]
    assert batch["tokens"].shape == (12, width)
    assert batch["mask"].tolist() == [True] * n + [False] * (12 - n)
    for row, i in enumerate(short):
        tokens = split.tokens[split.offsets[i] : split.offsets[i + 1]]
        np.testing.assert_array_equal(batch["tokens"][row, : len(tokens)], tokens)
        assert not batch["tokens"][row, len(tokens) :].any()
        assert batch["token_mask"][row].sum() == len(tokens)
        assert batch["labels"][row] == split.labels[i]
        assert batch["index"][row] == i


def test_cached_logits_travel_with_their_examples(split):
    logits = np.arange(103, dtype=np.float32)[:, None] * np.array([1, -1], np.float32)
    batch = collate(split, plan(split)[0], rows=10, answers={"teacher_logits": logits})
    np.testing.assert_array_equal(batch["teacher_logits"][:, 0], batch["index"])


def test_training_batches_continue_where_one_asks(split):
    batches = TrainingBatches(split, batch_size=10, rows=12, seed=3)
    num_steps = 3 * batches.per_epoch
    whole = list(batches.from_step(0, num_steps))
    assert len(whole) == num_steps
    rest = list(batches.from_step(17, num_steps))
    for ours, theirs in zip(whole[17:], rest, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    first = whole[: batches.per_epoch]
    seen = np.concatenate([batch["index"][batch["mask"]] for batch in first])
    assert sorted(seen) == list(range(103))


def test_processes_make_the_rows_of_a_batch_in_parts(split):
    logits = np.arange(103, dtype=np.float32)[:, None]
    whole = TrainingBatches(
        split, batch_size=10, rows=12, seed=3, answers={"teacher_logits": logits}
    )
    rows = [np.array([0, 1, 2, 6, 7, 8]), np.array([3, 4, 5, 9, 10, 11])]
    parts = [dataclasses.replace(whole, here=here) for here in rows]
    for step in range(whole.per_epoch):  # Short batches of a group among them.
        batch = whole[step]
        for part, here in zip(parts, rows, strict=True):
            made = part[step]
            np.testing.assert_array_equal(made.pop("mask"), batch["mask"])
            assert made.keys() == batch.keys() - {"mask"}
            for name, values in made.items():
                np.testing.assert_array_equal(values, batch[name][here])
