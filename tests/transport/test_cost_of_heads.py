"""Costs from hidden states and heads; see also tests/objective/test_coupled.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.transport.cost import L1, Cosine, SquaredL2
from kd.transport.cost_of_heads import STUDENT, TEACHER, costs_of_heads
from kd.types import Head


def heads(rows=6, classes=11):
    random = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(random.normal(size=shape))

    return Head(normal(rows, 3), normal(3, classes)), Head(
        normal(rows, 4), normal(4, classes)
    )


@pytest.mark.parametrize("cost", [L1(), SquaredL2()], ids=str)
def test_costs_are_those_of_all_predictions(cost, x64):
    student, teacher = heads()
    p, q = (jax.nn.softmax(head.logits() / 1.5) for head in (student, teacher))
    pairs = (STUDENT, TEACHER), (STUDENT, STUDENT)
    found = costs_of_heads(cost, student, teacher, 1.5, pairs=pairs, num_classes=4)
    for ours, x, y in zip(found, (p, p), (q, p), strict=True):
        np.testing.assert_allclose(ours, cost(x, y), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cost": Cosine()}, "needs all classes at once"),
        ({"num_groups": 4}, "a batch of 6 cannot be cut into 4 equal groups"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    student, teacher = heads()
    settings = {"cost": L1(), "num_groups": 1, "num_classes": 4} | changes
    with pytest.raises(ValueError, match=message):
        costs_of_heads(settings.pop("cost"), student, teacher, 1.0, **settings)
