import numpy as np
import pytest

from kd.data.pipeline import TrainingBatches, collate, plan_epoch, plan_in_order
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
    )


def plan(split, seed=1, epoch=0, batch_size=10):
    return plan_epoch(
        split.lengths, widths=WIDTHS, batch_size=batch_size, seed=seed, epoch=epoch
    )


def test_an_epoch_has_every_example_once_and_where_it_fits(split):
    batches = plan(split)
    seen = np.concatenate([batch.index for batch in batches])
    assert sorted(seen) == list(range(103))
    for index, width in batches:
        longest = split.lengths[index].max()
        assert width == min(w for w in WIDTHS if w >= longest)
        assert len(index) <= 10


def test_an_epoch_is_a_function_of_seed_and_epoch(split):
    def flat(batches):
        return [i for batch in batches for i in batch.index]

    assert flat(plan(split)) == flat(plan(split))
    assert flat(plan(split, epoch=1)) != flat(plan(split))
    assert flat(plan(split, seed=2)) != flat(plan(split))
    assert len(plan(split, seed=2, epoch=7)) == len(plan(split))


def test_too_long_an_example_is_refused(split):
    with pytest.raises(ValueError, match="longer than the largest width, 8"):
        plan_in_order(split.lengths, widths=(4, 8), batch_size=10)


def test_collate_pads_and_masks(split):
    (short, *_) = [batch for batch in plan(split) if len(batch.index) < 10]
    batch = collate(split, short, rows=12)
    n = len(short.index)
    assert batch["tokens"].shape == (12, short.width)
    assert batch["mask"].tolist() == [True] * n + [False] * (12 - n)
    for row, i in enumerate(short.index):
        tokens = split.tokens[split.offsets[i] : split.offsets[i + 1]]
        np.testing.assert_array_equal(batch["tokens"][row, : len(tokens)], tokens)
        assert not batch["tokens"][row, len(tokens) :].any()
        assert batch["token_mask"][row].sum() == len(tokens)
        assert batch["labels"][row] == split.labels[i]
        assert batch["index"][row] == i


def test_cached_logits_travel_with_their_examples(split):
    logits = np.arange(103, dtype=np.float32)[:, None] * np.array([1, -1], np.float32)
    batch = collate(split, plan(split)[0], rows=10, teacher_logits=logits)
    np.testing.assert_array_equal(batch["teacher_logits"][:, 0], batch["index"])


def test_training_batches_continue_where_one_asks(split):
    batches = TrainingBatches(split, widths=WIDTHS, batch_size=10, rows=12, seed=3)
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
