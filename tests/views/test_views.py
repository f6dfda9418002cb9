"""Views together, in experiments, and where they have no meaning."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd import config
from kd.data.glue import RTE, SST2
from kd.data.images import FASHION_MNIST
from kd.data.superglue import COPA
from kd.data.tables import GTZAN
from kd.divergences import DKD, KL
from kd.errors import UserError
from kd.evaluate.number import Number
from kd.experiment import Experiment, Network
from kd.features import Hints
from kd.models.bert import Bert
from kd.models.mlp import MLP
from kd.models.resnet import ResNet
from kd.objective import CrossEntropy, SquaredError
from kd.train.optimizer import AdamW
from kd.views import (
    Beside,
    Composed,
    Crop,
    CutMix,
    Cutout,
    Flip,
    Mixup,
    Pick,
    TokenMix,
    View,
)

NETWORKS: dict[Any, Any] = {
    SST2: Bert.tiny(),
    RTE: Bert.tiny(),
    COPA: Bert.tiny(),
    GTZAN: MLP(),
}


def experiment_with(view, data=FASHION_MNIST, objective=None, **fields):
    objective = objective or 1.0 * CrossEntropy() + 1.0 * KL()
    recipe = Experiment(
        data=data,
        student=NETWORKS.get(data, ResNet.resnet8()),
        objective=1.0 * (CrossEntropy() if data.target.has_classes else SquaredError()),
        optimizer=AdamW(),
        num_steps=1,
    )
    return dataclasses.replace(
        recipe, objective=objective, view=view, teachers=(Network(recipe=recipe),),
        **fields,
    )  # fmt: skip


IMAGES = [Mixup(), CutMix(), Cutout(), Flip(), Crop()]


@pytest.mark.parametrize(
    ("view", "data"),
    [(view, FASHION_MNIST) for view in IMAGES] + [(Mixup(), GTZAN), (TokenMix(), SST2)],
    ids=lambda value: getattr(value, "name", type(value).__name__),
)
def test_views_that_have_a_meaning(view, data):
    for one in (view, Beside(view), Pick(view), Composed((view,)), Beside(Pick(view))):
        experiment = experiment_with(one, data)
        tree = json.loads(json.dumps(config.to_json(experiment)))
        assert tree["view"]["class"] == type(one).__name__


@pytest.mark.parametrize(
    ("view", "data", "message"),
    [
        (Mixup(), SST2, "ids of tokens only look like, .* SST-2 are text; .* TokenMix"),
        (CutMix(), SST2, "CutMix is a view of images, .* be TokenMix"),
        (Flip(), RTE, "Flip is a view of images"),
        (CutMix(), GTZAN, "gtzan-features are rows of numbers; .* can be Mixup"),
        (Crop(), GTZAN, "Crop is a view of images"),
        (Cutout(), GTZAN, "Cutout is a view of images"),
        (
            TokenMix(),
            FASHION_MNIST,
            "view of text, .* images; .* Mixup, CutMix, Cutout",
        ),
        (TokenMix(), GTZAN, "TokenMix is a view of text"),
        (TokenMix(), RTE, "single sentences, and examples of RTE have several"),
        (TokenMix(), COPA, "single sentences, and examples of COPA have several"),
    ],
    ids=lambda value: getattr(value, "name", None) or type(value).__name__,
)
def test_views_without_a_meaning_are_refused(view, data, message):
    for one in (view, Beside(view), Pick(view), Composed((view,))):
        with pytest.raises(ValueError, match=message):
            experiment_with(one, data)


@pytest.mark.parametrize(
    ("view", "fields", "message"),
    [
        (
            Mixup(answers="interpolated"), {"answers": "live"},
            r"set answers=cached, or Mixup\(answers='live'\)",
        ),
        (
            Pick(CutMix(answers="interpolated")),
            {"objective": KL() + Hints(student_layer=0, teacher_layer=0)},
            "CutMix interpolates cached logits, and hints reads more of the teacher",
        ),
        (
            Composed((Flip(), Beside(CutMix(answers="interpolated")))), {},
            "Beside interpolates cached answers, and none are to what Flip gives",
        ),
        (
            Pick(CutMix(), by="teacher"), {"objective": 1.0 * CrossEntropy()},
            "Pick.by='teacher'. asks a teacher, and training needs none",
        ),
        (
            Pick(Flip()),
            {
                "data": dataclasses.replace(FASHION_MNIST, target=Number(0.0, 1.0)),
                "objective": 1.0 * SquaredError(),
            },
            "asks for a number, and Pick compares",
        ),
        (
            Beside(Mixup()), {"objective": CrossEntropy() + DKD()},
            "Beside leaves labels out of the view, and dkd reads them",
        ),
        (
            Beside(Mixup()), {"objective": 1.0 * CrossEntropy()},
            "every term of the objective reads them",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(view, fields, message):
    with pytest.raises(ValueError, match=message):
        experiment_with(view, **fields)


def test_labels_of_the_view_make_it_go_together():
    experiment_with(Beside(Mixup(), labels=True), objective=CrossEntropy() + DKD())
    experiment_with(Beside(Mixup(), labels=True), objective=1.0 * CrossEntropy())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Composed(()), "at least one view"),
        (lambda: Composed((Mixup(), Pick(CutMix()))), "Mixup and Pick each give"),
        (lambda: Composed((Beside(Flip()), Crop())), "Beside stands beside the batch"),
        (lambda: Beside(Beside(Flip())), "cannot stand beside it itself"),
        (lambda: Pick(Beside(Flip())), r"Beside\(Pick\(\.\.\.\)\)"),
        (lambda: Beside(Flip(), weight=-1.0), "weight must be at least 0"),
    ],
)
def test_views_that_cannot_be_composed(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_composed_views_are_applied_in_order(key):
    batch = {
        "inputs": jax.random.normal(key, (6, 8, 8, 1)),
        "mask": jnp.arange(6) < 5,
        "labels": jnp.arange(6),
    }
    keys = jax.random.split(key, 3)
    first, second, third = Crop(3), Cutout(5), CutMix()
    expected = third(keys[2], second(keys[1], first(keys[0], batch)))
    found = Composed((first, second, third))(key, batch)
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_array_equal(found[name], rows)
    other = Composed((second, first, third))(key, batch)
    assert not np.array_equal(other["inputs"], found["inputs"])


@pytest.mark.slow
def test_beside_keeps_the_batch_and_its_answers(key):
    batch = {
        "inputs": jnp.ones((6, 8, 8, 1)),
        "mask": jnp.arange(6) < 5,
        "labels": jnp.arange(6),
        "teacher_logits": jnp.ones((6, 3)),
    }
    viewed = Beside(CutMix(answers="interpolated"))(key, batch)
    beside = viewed.pop("view")
    assert viewed.keys() == batch.keys()
    assert beside.keys() == batch.keys() | {"label_weight"}
    assert not beside["label_weight"].any()
    counted = Beside(CutMix(), labels=True)(key, batch)["view"]
    assert "teacher_logits" not in counted and counted["label_weight"].any()


def test_settings_of_views_are_set_from_the_command_line():
    experiment = experiment_with(Composed((Crop(), Beside(Pick(CutMix())))))
    changed = config.override(
        experiment, "view.views.0.padding=2", "view.views.1.weight=0.5",
        "view.views.1.view.view.alpha=0.3", "view.views.1.view.by=teacher",
    )  # fmt: skip
    assert changed.view == Composed(
        (Crop(2), Beside(Pick(CutMix(0.3), by="teacher"), weight=0.5))
    )
    with pytest.raises(UserError, match="no field '2'"):
        config.override(experiment, "view.views.2.padding=2")
    assert config.override(experiment, "view=none").view is None


@pytest.mark.slow
@pytest.mark.parametrize("view", [*IMAGES, TokenMix(), Pick(), Beside(Flip())])
def test_every_view_is_a_view(view):
    assert isinstance(view, View)
    assert view.changes_answers is False
    assert (view.beside is None) == (not isinstance(view, Beside))
