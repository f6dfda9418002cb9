"""Batches of several seeds as one."""

import numpy as np
import pytest

from kd.data.pipeline import TrainingBatches
from kd.data.stacked import StackedBatches
from kd.data.text import Encoded

WIDTHS = (4, 8, 16)


def encoded(widths):
    random = np.random.default_rng(0)
    lengths = random.integers(2, 17, 103)
    return Encoded(
        tokens=random.integers(1, 50, lengths.sum()).astype(np.int32),
        segments=np.zeros(lengths.sum(), np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=random.integers(0, 2, 103).astype(np.int32),
        paired=False,
        widths=widths,
    )


def members(widths, answers):
    return tuple(
        TrainingBatches(
            encoded(widths), batch_size=10, rows=12, seed=seed, answers=answers
        )
        for seed in (0, 1, 2)
    )


@pytest.mark.parametrize("widths", [WIDTHS, (16,)])
def test_every_seed_has_its_own_batch_filled_up(widths):
    alone = members(widths, {"teacher_logits": np.arange(206.0).reshape(103, 2)})
    together = StackedBatches(alone)
    assert (together.batch_size, together.per_epoch) == (10, alone[0].per_epoch)
    steps = range(5, 5 + 2 * together.per_epoch)
    met = set()
    for step, batch in zip(
        steps, together.from_step(steps.start, steps.stop), strict=True
    ):
        own = [member[step] for member in alone]
        widest = max(b["tokens"].shape[1] for b in own)
        met.add(len({b["tokens"].shape[1] for b in own}))
        for i, ours in enumerate(own):
            width = ours["tokens"].shape[1]
            for name, expected in ours.items():
                found = batch[name][i]
                assert found.dtype == expected.dtype
                if name in ("tokens", "token_mask"):
                    assert found.shape == (12, widest)
                    assert not found[:, width:].any()
                    found = found[:, :width]
                np.testing.assert_array_equal(found, expected)
            if len(widths) > 1:
                assert batch["width"][i].tolist() == [width] * 12
    # Otherwise nothing was filled up here, or nothing is said where nothing ever is.
    assert max(met) > 1 if len(widths) > 1 else "width" not in batch


def test_an_epoch_is_planned_once(monkeypatch):
    """However many seeds there are."""
    planned = []
    plan = TrainingBatches._make_plan

    def counted(self, epoch):
        planned.append((self.seed, epoch))
        return plan(self, epoch)

    monkeypatch.setattr(TrainingBatches, "_make_plan", counted)
    together = StackedBatches(members(WIDTHS, {}))
    list(together.from_step(0, together.per_epoch))
    assert sorted(planned) == [(seed, 0) for seed in (0, 1, 2)]
