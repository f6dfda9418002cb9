"""What grids show, that they repeat, and the information that two views share."""

import collections
import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from data.test_images import idx

from kd.data import sources
from kd.data.digit_grids import MULTI_MNIST, Drawn, draw, shape_of, successor
from kd.errors import UserError
from kd.evaluate.digits import Digits
from kd.models.mlp import MLP
from kd.models.resnet import ResNet

LABELS = {"train": np.arange(30) % 10, "t10k": np.arange(20) % 10}


def write_digits(directory, labels=LABELS):
    """4 x 4 pixels; every image has its own digit, and its number, as brightness."""
    (directory / "mnist").mkdir(parents=True)
    for part, digits in labels.items():
        images = np.zeros((len(digits), 4, 4), np.uint8)
        images[:, 0, 0] = digits
        images[:, 3, 3] = 100 + np.arange(len(digits))
        path = directory / "mnist"
        (path / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (path / f"{part}-labels-idx1-ubyte").write_bytes(idx(digits))


def task(directory, num_digits=4, **changes: Any):
    fields: dict[str, Any] = {"num_train": 300, "num_dev": 100, "dev_share": 0}
    return dataclasses.replace(
        MULTI_MNIST, directory=str(directory), target=Digits(num_digits=num_digits),
        **fields | changes,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    write_digits(tmp_path / "data")
    return tmp_path / "data"


def prepared(task, folder):
    return task.prepare(sources.load(task), folder.parent / "model")


def pixels(split, views):
    """As bytes again."""
    normalization = split.singles.normalization
    return np.round(views * normalization.std + normalization.mean).astype(int)


@pytest.mark.parametrize(
    ("num_digits", "shape"), [(1, (1, 1)), (2, (1, 2)), (4, (2, 2)), (9, (3, 3))]
)
def test_grids_show_the_number_row_by_row(folder, num_digits, shape):
    made = task(folder, num_digits)
    assert shape_of(num_digits) == shape
    for split, num in (
        (prepared(made, folder).train, 300),
        (prepared(made, folder).dev, 100),
    ):
        index = np.array([5, 0, 17])
        found = split.inputs(index)
        height, width = 4 * shape[0], 4 * shape[1]
        assert found["inputs"].shape == found["others"].shape == (3, height, width, 1)
        assert found["inputs"].dtype == np.float32 and len(split) == num
        first, second = (pixels(split, found[k]) for k in ("inputs", "others"))
        # The corner of every tile is its digit.
        digits = made.target.digits(split.labels[index])
        np.testing.assert_array_equal(first[:, ::4, ::4, 0].reshape(3, -1), digits)
        np.testing.assert_array_equal(
            second[:, ::4, ::4, 0].reshape(3, -1), (digits + 1) % 10
        )
        np.testing.assert_array_equal(
            first[:, 3::4, 3::4, 0].reshape(3, -1) - 100, split.drawn.first[index]
        )


def test_the_same_every_time_and_each_split_its_own(folder):
    made = task(folder)
    once, again = prepared(made, folder), prepared(made, folder)
    index = np.arange(50)
    for name in ("inputs", "others"):
        np.testing.assert_array_equal(
            once.train.inputs(index)[name], again.train.inputs(index)[name]
        )
    assert once.train.content() == again.train.content()
    assert not np.array_equal(once.train.labels[:100], once.dev.labels)
    # A batch of one example is that example, wherever else it is asked for.
    np.testing.assert_array_equal(
        once.train.inputs(np.array([7]))["inputs"][0],
        once.train.inputs(index)["inputs"][7],
    )
    assert once.preprocessing == made.preprocessing(folder.parent / "model")


def joint_of_images(labels, num_digits):
    """Probability of every pair of views, as their images, by enumerating the draws."""
    members = {d: np.flatnonzero(labels == d) for d in range(10)}
    joint = collections.Counter()
    for digits in itertools.product(range(10), repeat=num_digits):
        after = tuple(successor(np.array(digits)))
        views = [
            [*itertools.product(*(members[d] for d in shown))]
            for shown in (digits, after)
        ]
        chance = 0.1**num_digits / (len(views[0]) * len(views[1]))
        for pair in itertools.product(*views):
            joint[pair] += chance
    return joint


def information(joint):
    """Mutual information, nats."""
    first, second = collections.Counter(), collections.Counter()
    for (x, y), p in joint.items():
        first[x] += p
        second[y] += p
    return sum(
        p * math.log(p / (first[x] * second[y])) for (x, y), p in joint.items() if p
    )


@pytest.mark.parametrize("num_digits", [1, 2])
def test_mutual_information_by_enumeration(num_digits):
    """Unequal numbers of images of each digit, which make no difference."""
    counts = [1, 2, 1, 3, 1, 1, 2, 1, 1, 1]
    labels = np.repeat(np.arange(10), counts)
    joint = joint_of_images(labels, num_digits)
    np.testing.assert_allclose(sum(joint.values()), 1)
    made = dataclasses.replace(MULTI_MNIST, target=Digits(num_digits=num_digits))
    np.testing.assert_allclose(information(joint), made.mutual_information)
    np.testing.assert_allclose(made.mutual_information, num_digits * math.log(10))


def test_what_is_drawn_is_what_is_enumerated():
    labels = np.repeat(np.arange(10), [1, 2, 1, 3, 1, 1, 2, 1, 1, 1])
    num = 60_000
    drawn = draw(labels, num, 1, stream=0)
    joint = joint_of_images(labels, 1)
    counts: collections.Counter[Any] = collections.Counter(
        ((int(a),), (int(b),))
        for a, b in zip(drawn.first[:, 0], drawn.second[:, 0], strict=True)
    )
    assert counts.keys() == joint.keys()
    for pair, p in joint.items():
        assert abs(counts[pair] - num * p) < 5 * math.sqrt(num * p * (1 - p))


def test_places_and_handwriting_are_drawn_by_themselves():
    labels = np.arange(40) % 10
    drawn = draw(labels, 20_000, 4, stream=3)
    assert isinstance(drawn, Drawn) and drawn.first.shape == (20_000, 4)
    np.testing.assert_array_equal(labels[drawn.first], drawn.digits)
    np.testing.assert_array_equal(labels[drawn.second], (drawn.digits + 1) % 10)
    both = np.corrcoef(
        np.concatenate([drawn.digits, drawn.first // 10, drawn.second // 10], axis=1).T
    )
    assert np.abs(both - np.eye(12)).max() < 0.04


def test_networks_that_lose_the_place_are_refused(folder):
    made = task(folder)
    with pytest.raises(ValueError, match="student is a ResNet, which averages over pl"):
        made.check(ResNet.resnet8(), "student")
    made.check(MLP(), "student")


def test_a_test_split_is_of_test_images(tmp_path):
    labels = {"train": np.arange(200) % 10, "t10k": np.arange(60) % 10}
    write_digits(tmp_path / "data", labels)
    made = prepared(task(tmp_path / "data", dev_share=0.3), tmp_path / "data")
    assert made.final is made.test and len(made.test) == 100
    for split in (made.train, made.dev, made.test):
        assert split.inputs(np.arange(3))["others"].shape == (3, 8, 8, 1)
    assert len(made.test.singles) == 60
    assert len(made.train.singles) + len(made.dev.singles) == 200
    assert made.test.content() != made.dev.content()


def test_a_digit_without_an_image(tmp_path):
    write_digits(tmp_path / "data", {"train": np.arange(30) % 10, "t10k": np.arange(9)})
    made = task(tmp_path / "data")
    with pytest.raises(
        UserError, match="mnist, dev: there is no image of 9; grids need"
    ):
        prepared(made, tmp_path / "data")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_train": 0}, "num_train must be at least 1, got 0"),
        ({"num_dev": 10}, "num_dev must be at least 100, got 10"),
        ({"unlabelled": 0.5}, "unlabelled must be 0, got 0.5"),
        ({"label_noise": 0.5}, "the target is a number"),
    ],
)
def test_bad_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MULTI_MNIST, **fields)
