import dataclasses

import numpy as np
import pytest

from kd.data.glue import SST2, STSB
from kd.data.pipeline import TrainingBatches
from kd.data.sample import Sampled
from kd.evaluate.classes import Classes

THREE = Classes(("a", "b", "c"))
LABELS = np.repeat([0, 1, 2], [500, 300, 200]).astype(np.int32)
LABELS = np.random.default_rng(0).permutation(LABELS)


def draw(labels=LABELS, target=THREE, **settings):
    return Sampled(**settings).sample(labels, target)


def of_classes(labels):
    return np.bincount(labels, minlength=3).tolist()


def test_everything_by_default():
    sample = draw(subset_seed=3)
    np.testing.assert_array_equal(sample.kept, np.arange(1000))
    assert sample.labels is LABELS
    assert sample.is_whole
    assert sample.counts() == {
        "num_examples": 1000, "num_labelled": 1000, "num_changed_labels": 0,
        "num_answered": 1000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.1, [50, 30, 20]), (0.5, [250, 150, 100]), (1 / 3, [167, 100, 67]),
     (0.001, [1, 1, 1]), (0.999, [500, 300, 200])],
)  # fmt: skip
def test_a_fraction_of_every_class(fraction, expected):
    sample = draw(fraction=fraction)
    assert of_classes(LABELS[sample.kept]) == expected
    assert np.all(np.diff(sample.kept) > 0)
    np.testing.assert_array_equal(sample.labels, LABELS)
    assert sample.is_whole == (expected == [500, 300, 200])


def test_labels_are_hidden_of_every_class():
    sample = draw(fraction=0.1, unlabelled=0.9)
    with_label = sample.kept[sample.labelled[sample.kept]]
    assert of_classes(LABELS[with_label]) == [5, 3, 2]
    np.testing.assert_array_equal(sample.labels[with_label], LABELS[with_label])
    without = np.setdiff1d(sample.kept, with_label)
    assert set(sample.labels[without]) == {-1}
    np.testing.assert_array_equal(sample.only(sample.labelled).kept, with_label)
    # One of each is left.
    sample = draw(unlabelled=0.9999)
    assert of_classes(LABELS[sample.labelled]) == [1, 1, 1]
    assert draw(np.array([0, 1, 2]), unlabelled=0.9).num_labelled == 3


@pytest.mark.parametrize("noise", [0.2, 0.5, 1.0])
def test_noise_is_another_class(noise):
    sample = draw(label_noise=noise)
    changed = sample.labels != LABELS
    assert changed.sum() == sample.num_changed == 1000 * noise
    assert sample.labels.min() >= 0 and sample.labels.max() <= 2
    assert sample.labels.dtype == LABELS.dtype
    # Uniform over the two other classes, as far as chance goes.
    steps = (sample.labels - LABELS)[changed] % 3
    share = np.mean(steps == 1)
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(changed.sum())


def test_noise_is_of_the_labels_that_are_left():
    sample = draw(fraction=0.5, unlabelled=0.8, label_noise=0.3)
    assert sample.counts() == {
        "num_examples": 500, "num_labelled": 100, "num_changed_labels": 30,
        "num_answered": 500,
    }  # fmt: skip
    with_label = sample.kept[sample.labelled[sample.kept]]
    assert np.sum(sample.labels[with_label] != LABELS[with_label]) == 30


def test_teachers_are_asked_about_some_of_every_class():
    sample = draw(fraction=0.5, unlabelled=0.5, unanswered=0.9)
    assert of_classes(LABELS[sample.asked]) == [25, 15, 10]
    assert set(sample.asked) < set(sample.kept)
    assert sample.counts()["num_answered"] == 50 and not sample.is_whole
    # Neither of the labelled only nor of the others only.
    assert 5 < sample.labelled[sample.asked].sum() < 45
    assert not draw(unanswered=0.5).is_whole
    assert of_classes(LABELS[draw(unanswered=0.9999).asked]) == [1, 1, 1]
    less, more = draw(unanswered=0.9), draw(unanswered=0.5)
    assert set(less.asked) < set(more.asked)
    few = less.only(LABELS == 1)
    np.testing.assert_array_equal(few.asked, less.asked[LABELS[less.asked] == 1])


def test_a_sample_is_a_function_of_settings_and_seed():
    settings = {"fraction": 0.3, "unlabelled": 0.5, "label_noise": 0.2}
    one, same, other = (draw(**settings, subset_seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.kept, same.kept)
    np.testing.assert_array_equal(one.labels, same.labels)
    assert len(np.intersect1d(one.kept, other.kept)) < 150


def test_less_is_part_of_more():
    less, more = draw(fraction=0.1), draw(fraction=0.2)
    assert set(less.kept) < set(more.kept)
    less, more = draw(unlabelled=0.9), draw(unlabelled=0.5)
    assert not np.any(less.labelled & ~more.labelled)
    less, more = draw(label_noise=0.1), draw(label_noise=0.4)
    changed = less.labels != LABELS
    np.testing.assert_array_equal(less.labels[changed], more.labels[changed])


def test_of_a_number():
    numbers = np.linspace(0, 5, 200, dtype=np.float32)
    sample = draw(numbers, STSB.target, fraction=0.25, unlabelled=0.5)
    assert sample.counts() == {
        "num_examples": 50, "num_labelled": 25, "num_changed_labels": 0,
        "num_answered": 50,
    }  # fmt: skip
    assert np.isnan(sample.labels).sum() == 25
    assert len(draw(numbers, STSB.target, fraction=1e-6).kept) == 1


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (SST2, {"fraction": 0.0}, r"fraction must lie in \(0, 1\], got 0.0"),
        (SST2, {"fraction": 1.5}, "fraction must lie in"),
        (SST2, {"unlabelled": 1.0}, r"unlabelled must lie in \[0, 1\), got 1.0"),
        (SST2, {"unanswered": 1.0}, r"unanswered must lie in \[0, 1\), got 1.0"),
        (SST2, {"label_noise": -0.1}, "label_noise must lie in"),
        (SST2, {"subset_seed": -1}, "subset_seed must lie in"),
        (STSB, {"label_noise": 0.1}, "the target is a number; it must be 0, got 0.1"),
    ],
)
def test_what_cannot_be_is_refused(task, settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(task, **settings)


class Split:
    """Examples whose input is their place, in two groups."""

    labels = LABELS
    groups = np.arange(1000) % 2

    def __len__(self):
        return 1000

    def inputs(self, index):
        return {"inputs": index}

    def content(self):
        return b""


def batches(sample):
    answers = {"teacher_logits": np.arange(1000.0)[:, None]}
    return TrainingBatches(Split(), 8, 12, seed=1, answers=answers, sample=sample)


def test_an_epoch_has_the_kept_examples_and_their_own_answers():
    sample = draw(fraction=0.1, label_noise=0.2)
    some = batches(sample)
    epoch = [some[i] for i in range(some.per_epoch)]
    seen = np.concatenate([batch["index"][batch["mask"]] for batch in epoch])
    np.testing.assert_array_equal(np.sort(seen), sample.kept)
    for batch in epoch:
        np.testing.assert_array_equal(batch["inputs"], batch["index"])
        np.testing.assert_array_equal(batch["teacher_logits"][:, 0], batch["index"])
        np.testing.assert_array_equal(batch["labels"], sample.labels[batch["index"]])
        assert "label_weight" not in batch


def test_weights_are_those_of_the_whole_batch_in_every_process():
    whole = batches(draw(unlabelled=0.5, unanswered=0.3))
    here = np.arange(4, 12)
    part = dataclasses.replace(whole, here=here)
    for step in range(0, whole.per_epoch, 10):
        batch, made = whole[step], part[step]
        assert made.keys() == batch.keys()
        for name in ("labels", "label_weight", "answer_weight", "inputs"):
            np.testing.assert_array_equal(made[name], batch[name][here])


def test_the_whole_sample_changes_no_batch():
    plain, whole = batches(None), batches(draw())
    assert plain.per_epoch == whole.per_epoch
    for i in (0, 5, 130):
        assert plain[i].keys() == whole[i].keys()
        for name, values in plain[i].items():
            np.testing.assert_array_equal(values, whole[i][name])
            assert values.dtype == whole[i][name].dtype


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"unlabelled": 0.7}, ["label"]),
        ({"unanswered": 0.7}, ["answer"]),
        (
            {"unlabelled": 0.4, "unanswered": 0.5},
            ["label", "answer", "label_and_answer"],
        ),
    ],
)
def test_weights_average_over_those_of_whom_it_is_known(settings, names):
    sample = draw(**settings)
    some = batches(sample)
    for i in range(20):
        batch = some[i]
        assert [n[:-7] for n in batch if n.endswith("_weight")] == names
        index, mask = batch["index"], batch["mask"]
        known = {"label": batch["labels"] >= 0, "answer": sample.answered[index]}
        known["label_and_answer"] = known["label"] & known["answer"]
        for name in names:
            weight, these = batch[f"{name}_weight"], mask & known[name]
            np.testing.assert_array_equal(weight > 0, these)
            if these.any():
                values = np.random.default_rng(i).normal(size=12)
                mean = (values * weight)[mask].mean()
                np.testing.assert_allclose(mean, values[these].mean(), rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"fraction": 0.1}])
def test_how_many_examples_some_steps_see(settings):
    some = batches(draw(**settings))
    seen = 0
    for i in range(2 * some.per_epoch + 3):
        assert some.num_seen(i) == seen
        seen += int(some[i]["mask"].sum())
    assert some.num_seen(2 * some.per_epoch) == 2 * len(draw(**settings).kept)
