import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd import config
from kd.errors import UserError
from kd.train.optimizer import AdamW

PARAMS = {
    "student": {
        "embeddings": {"tokens": jnp.ones((5, 2)), "norm": jnp.ones(2)},
        "layer_0": {"query": jnp.ones((2, 2)), "out": jnp.ones((2, 2))},
        "classifier": jnp.ones((2, 3)),
    },
    "objective": {"layer_0": jnp.ones(2)},
}


@pytest.mark.parametrize(
    ("field", "range_"),
    [
        ("learning_rate=0", "learning_rate must be positive, got 0.0"),
        ("warmup=1", r"warmup is a share of the steps, in \[0, 1\), got 1.0"),
        ("weight_decay=-5", "weight_decay must not be negative, got -5.0"),
        ("b1=1", r"b1 must be in \[0, 1\), got 1.0"),
        ("b2=2", r"b2 must be in \[0, 1\), got 2.0"),
        ("b2=-0.1", r"b2 must be in \[0, 1\), got -0.1"),
        ("epsilon=-1e-8", "epsilon must be positive, got -1e-08"),
        ("epsilon=0", "epsilon must be positive, got 0.0"),
        ("clip=-1", "clip must not be negative, got -1.0"),
        ("frozen=/", 'frozen must be names such as "embeddings"'),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_range(field, range_):
    with pytest.raises(UserError, match=range_):
        config.override(AdamW(), field)


@pytest.mark.parametrize(
    "name", ["learning_rate", "weight_decay", "b1", "b2", "epsilon", "clip", "warmup"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be finite, got {value}$"):
        AdamW(**{name: value})


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(ValueError, match=r"weight_decay .*; b2 .*; epsilon must"):
        AdamW(weight_decay=-1.0, b2=1.0, epsilon=0.0)


def test_the_ends_of_the_ranges_are_taken():
    AdamW(b1=0.0, b2=0.0, warmup=0.0, weight_decay=0.0, clip=0.0)


def updated(optimizer, gradient):
    made = optimizer.build(10)
    state = made.init(PARAMS)
    for _ in range(2):
        updates, state = jax.jit(made.update)(gradient, state, PARAMS)
    return optax.apply_updates(PARAMS, updates), state


@pytest.mark.parametrize(
    ("names", "same"),
    [
        (("embeddings",), {"student/embeddings/tokens", "student/embeddings/norm"}),
        (("layer_0/query",), {"student/layer_0/query"}),
        (("norm", "classifier"), {"student/embeddings/norm", "student/classifier"}),
    ],
)
def test_frozen_parameters_stay_and_have_no_moments(names, same):
    gradient = jax.tree.map(jnp.ones_like, PARAMS)
    found, state = updated(AdamW(weight_decay=0.1, frozen=names), gradient)
    stayed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, new), old in zip(
            jax.tree_util.tree_leaves_with_path(found),
            jax.tree.leaves(PARAMS),
            strict=True,
        )
        if np.array_equal(new, old)
    }
    assert stayed == same
    _, whole = updated(AdamW(weight_decay=0.1), gradient)
    assert len(jax.tree.leaves(whole)) - len(jax.tree.leaves(state)) == 2 * len(same)


def test_frozen_gradients_do_not_count_for_the_norm():
    gradient = jax.tree.map(jnp.zeros_like, PARAMS)
    gradient["student"]["classifier"] += 0.01
    huge = jax.tree.map(lambda x: x, gradient)
    huge["student"]["embeddings"]["tokens"] += 1e6
    # Steps of Adam do not depend on the gradient's scale but beside epsilon.
    optimizer = AdamW(epsilon=1.0, learning_rate=1.0, frozen=("embeddings",))
    ours, _ = updated(optimizer, huge)
    theirs, _ = updated(optimizer, gradient)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("embedding",),
            "embedding is in no network; there are classifier, embeddings, l",
        ),
        (("student",), "student is in no network"),
        (("embeddings", "layer_0", "classifier"), "leaves nothing to train"),
    ],
)
def test_a_name_that_is_not_there(names, message):
    with pytest.raises(UserError, match=f"optimizer.frozen: .*{message}"):
        AdamW(frozen=names).build(10).init(PARAMS)
