import base64
import io
import re
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest

from kd.report import heat_maps


def probs_of(first: list[float]) -> np.ndarray:
    return np.stack((1 - np.array(first), np.array(first)), axis=1)


def test_order_of_two_classes_is_rising_probability_of_class_1():
    probs = probs_of([0.9, 0.1, 0.6, 0.4])

    np.testing.assert_array_equal(heat_maps.by_prediction(probs), [1, 3, 2, 0])


def test_order_of_many_classes_groups_predictions():
    probs = np.random.default_rng(0).dirichlet(np.ones(5), size=50)

    predicted = probs.argmax(axis=1)[heat_maps.by_prediction(probs)]

    assert (np.diff(predicted) >= 0).all()


def test_order_of_many_classes_starts_with_the_surest():
    probs = np.array([[0.1, 0.5, 0.4], [0.3, 0.7, 0.0], [0.4, 0.3, 0.3]])

    np.testing.assert_array_equal(heat_maps.by_prediction(probs), [2, 1, 0])


@pytest.mark.parametrize("draw", [heat_maps.transport_plan, heat_maps.transport_cost])
def test_classes_are_named_where_they_are_predicted(draw):
    student = np.eye(4)[[0, 0, 2, 2]]
    teacher = np.eye(4)[[0, 3, 2, 2]]
    classes = ("ape", "bee", "cow", "a very long-eared owl")

    svg = draw(np.eye(4), student=student, teacher=teacher, classes=classes)

    names = re.findall(r">([^<>]+)</text>", svg)
    assert (names.count("ape"), names.count("bee"), names.count("cow")) == (2, 0, 2)
    assert names.count("a very long…") == 1


def test_of_two_classes_the_name_says_which_rises():
    probs = probs_of([0.9, 0.1])

    svg = heat_maps.transport_plan(
        np.eye(2), student=probs, teacher=probs, classes=("bad", "good")
    )

    assert "rising p(good)" in svg


@pytest.mark.parametrize("mass", [1.0, 64.0])
def test_row_marginal_error_is_relative_to_the_mass(mass):
    uniform = np.full((4, 4), mass / 16)
    concentrated = np.zeros((4, 4))
    concentrated[0, 0] = mass

    assert heat_maps.row_marginal_error(uniform) == 0
    assert heat_maps.row_marginal_error(concentrated) == pytest.approx(1.5)


def test_map_shows_rows_and_columns_in_order():
    student, teacher = probs_of([0.9, 0.1, 0.3]), probs_of([0.2, 0.8, 0.6])
    plan = np.zeros((3, 3))
    plan[0, 1] = 1.0  # the last row and column once sorted

    svg = heat_maps.transport_plan(plan, student=student, teacher=teacher)

    pictures = re.findall(r"data:image/png;base64,\s*([^\"]+)", svg)
    pixels = [
        matplotlib.image.imread(io.BytesIO(base64.b64decode(p))) for p in pictures
    ]
    (cells,) = [picture for picture in pixels if picture.shape[:2] == (3, 3)]
    bright = cells[..., :3].sum(axis=-1)
    assert np.unravel_index(bright.argmax(), bright.shape) == (2, 2)
    assert np.unique(bright.round(3)).size == 2


@pytest.mark.parametrize("draw", [heat_maps.transport_plan, heat_maps.transport_cost])
@pytest.mark.parametrize("num_classes", [2, 3, 40])
def test_maps_are_well_formed_and_repeatable(draw, num_classes):
    random = np.random.default_rng(0)
    student, teacher = (random.dirichlet(np.ones(num_classes), size=32) for _ in "st")
    values = random.uniform(size=(32, 32))

    svg = draw(values, student=student, teacher=teacher)

    ElementTree.fromstring(svg)
    assert draw(values, student=student, teacher=teacher) == svg
    assert ("mass" if draw is heat_maps.transport_plan else "cost") in svg
    assert ("rising p(class 1)" in svg) == (num_classes == 2)
