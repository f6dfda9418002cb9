"""One battery for every loss of hidden states of `feature_battery_cases`."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from conftest import OPTIMIZED
from features.feature_battery_cases import CLASSES, LOSSES, MEANS, ROWS, named

import kd.features
from kd.features import (
    CRD,
    PKT,
    VID,
    AttentionMSE,
    EmbeddingCompression,
    NormAndDirection,
    OverLayers,
    PositionLoss,
    RKDDistance,
    WassersteinDependency,
)
from kd.objective import Loss
from kd.train.mesh import data_mesh, replicate, shard_batch

every_loss = pytest.mark.parametrize("case", LOSSES, ids=named)


def features(case, seed, scale=1.0, equal=False, dtype=np.float32):
    """Of a student and of a teacher."""
    random = np.random.default_rng(seed)
    ours, theirs = 2 * case.widths[:1] if equal else case.widths
    if isinstance(case.loss, AttentionMSE):
        sizes = (ROWS, ours, 5, 5), (ROWS, theirs, 5, 5)
    elif isinstance(case.loss, PositionLoss):
        sizes = (ROWS, 5, ours), (ROWS, 5, theirs)
    else:
        sizes = (ROWS, ours), (ROWS, theirs)
    return tuple((scale * random.normal(size=size)).astype(dtype) for size in sizes)


LABELS = np.arange(ROWS, dtype=np.int32) % CLASSES


def parameters(case, seed=0, dtype=np.float32):
    """Of the loss, with biases that are not 0."""
    if isinstance(case.loss, AttentionMSE):
        return ()
    made = case.loss.parameters(jax.random.key(seed), *case.widths, CLASSES)
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (x + 0.3 * random.normal(size=x.shape)).astype(dtype), made
    )


def call(loss, params, student, teacher, labels, where):
    if isinstance(loss, AttentionMSE):
        where = jnp.broadcast_to(where[:, None], student.shape[::2])
        return loss(student, teacher, where=where)
    if isinstance(loss, PositionLoss):
        where = jnp.broadcast_to(where[:, None], student.shape[:2])
        return loss(student, teacher, params=params, where=where)
    given = {}
    if isinstance(loss, NormAndDirection) and loss.class_means == "training":
        dtype = jnp.promote_types(teacher.dtype, jnp.float32)
        given["means"] = jnp.asarray(MEANS, dtype)[labels]
    return loss(student, teacher, params=params, labels=labels, where=where, **given)


@functools.partial(jax.jit, static_argnums=0)
def _compiled(loss, params, student, teacher, labels, where, weights):
    def total(student, teacher, params):
        losses = call(loss, params, student, teacher, labels, where)
        return jnp.sum(weights * losses), losses

    gradients, losses = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(
        student, teacher, params
    )
    return losses, *gradients


WEIGHTS = np.linspace(0.5, 1.5, ROWS, dtype=np.float32)  # tells rows apart


def evaluate(loss, params, student, teacher, labels=LABELS, where=None):
    """Losses, and gradients of their weighted sum for student and parameters."""
    where = np.ones(ROWS, bool) if where is None else where
    losses, ours, theirs, own = jax.device_get(
        _compiled(loss, params, student, teacher, labels, where, WEIGHTS)
    )
    assert not theirs.any(), "the teacher is a constant"
    return losses, ours, own


def finite(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


def dot(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(np.sum(x * y) for x, y in pairs)


def test_every_public_loss_is_in_the_battery():
    public = {
        member
        for _, member in inspect.getmembers(kd.features, inspect.isclass)
        if issubclass(member, Loss) and not inspect.isabstract(member)
    }
    # Its own test is that it is the mean of others.
    assert public - {OverLayers} == {type(case.loss) for case in LOSSES}


def test_names_differ():
    by_class = {type(case.loss): case.loss.name for case in LOSSES}
    assert len(set(by_class.values())) == len(by_class)


@every_loss
@pytest.mark.parametrize("garbage", [None, np.nan, np.inf, 1e30])
def test_value_and_gradient_are_those_of_the_definition(case, garbage, x64):
    """Without masked rows, and with some that hold garbage."""
    student, teacher = features(case, 0, dtype=np.float64)
    params = parameters(case, dtype=np.float64)
    kept = np.arange(ROWS) % 4 > 0 if garbage else np.ones(ROWS, bool)
    labels = np.where(kept, LABELS, -100)
    given = [np.array(student), np.array(teacher)]
    for array in given:
        array[~kept] = garbage
    losses, gradient, own_gradient = evaluate(
        case.loss, params, given[0], given[1], labels, where=kept
    )

    def definition(params, student, of=case.definition):
        return of(params, student[kept], teacher[kept], LABELS[kept])

    np.testing.assert_allclose(
        losses[kept], definition(params, student), rtol=1e-9, atol=1e-13
    )
    assert not losses[~kept].any() and not gradient[~kept].any()

    random = np.random.default_rng(1)
    h = 1e-6

    def slope(function):
        above, below = (function(step) @ WEIGHTS[kept] for step in (h, -h))
        return (above - below) / (2 * h)

    along = random.normal(size=student.shape)
    np.testing.assert_allclose(
        dot(gradient, along),
        slope(lambda step: definition(params, student + step * along)),
        rtol=1e-6,
        atol=1e-8,
    )
    if jax.tree.leaves(params):
        along = jax.tree.map(lambda x: random.normal(size=x.shape), params)
        np.testing.assert_allclose(
            dot(own_gradient, along),
            slope(
                lambda step: definition(
                    jax.tree.map(lambda x, d: x + step * d, params, along),
                    student,
                    case.learned or case.definition,
                )
            ),
            rtol=1e-6,
            atol=1e-8,
        )


@every_loss
def test_nothing_left_gives_zero(case):
    student, teacher = features(case, 3)
    found = evaluate(
        case.loss, parameters(case), student, teacher, where=np.zeros(ROWS, bool)
    )
    assert not any(leaf.any() for leaf in jax.tree.leaves(found))


@every_loss
def test_one_row_left_is_finite(case):
    student, teacher = features(case, 4)
    found = evaluate(
        case.loss, parameters(case), student, teacher, where=np.arange(ROWS) == 2
    )
    assert finite(found) and not found[0][np.arange(ROWS) != 2].any()


@every_loss
@pytest.mark.parametrize("seed", range(4))
def test_properties(case, seed):
    student, teacher = features(case, seed, scale=[0.1, 1.0, 1.0, 5.0][seed])
    params = parameters(case, seed)
    losses, _, _ = evaluate(case.loss, params, student, teacher)
    assert losses.shape == (ROWS,) and losses.dtype == np.float32
    assert case.signed or np.all(losses >= -1e-6)
    order = np.random.default_rng(seed).permutation(ROWS)
    found, _, _ = evaluate(
        case.loss, params, student[order], teacher[order], LABELS[order]
    )
    np.testing.assert_allclose(found, losses[order], rtol=1e-4, atol=1e-6)
    assert abs(losses).sum() > 1e-3


equal_gives_zero = pytest.mark.parametrize(
    "case", [case for case in LOSSES if case.at_equal is not None], ids=named
)


@equal_gives_zero
def test_equal_features_give_zero(case):
    student, _ = features(case, 5, equal=True)
    losses, gradient, _ = evaluate(case.loss, case.at_equal, student, student)
    np.testing.assert_allclose(losses, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-3)


@every_loss
@pytest.mark.parametrize("size", [0.0, 1e-20, 1e10])
@pytest.mark.parametrize("who", ["student", "teacher", "both"])
def test_extreme_features_stay_finite(case, size, who):
    student, teacher = features(case, 6)
    if who != "teacher":
        student *= np.float32(size)
    if who != "student":
        teacher *= np.float32(size)
    assert finite(evaluate(case.loss, parameters(case), student, teacher))


SCALE_FREE = [case for case in LOSSES if case.scale_free]


@pytest.mark.parametrize("options", [{}, OPTIMIZED], ids=["", "optimized"])
@pytest.mark.parametrize("power", [-100, -66, 63, 90])
@pytest.mark.parametrize("case", SCALE_FREE, ids=named)
def test_features_of_any_scale_are_as_of_scale_1(case, power, options):
    student, teacher = features(case, 6, equal=True)
    scale = np.float32(2.0**power)

    @functools.partial(jax.jit, compiler_options=options)
    def value_and_gradient(student, teacher):
        def total(student):
            where = jnp.ones(ROWS, bool)
            labels = jnp.asarray(LABELS)
            losses = call(case.loss, (), student, teacher, labels, where)
            return losses @ WEIGHTS, losses

        gradient, losses = jax.grad(total, has_aux=True)(student)
        return losses, gradient

    expected, slope = jax.device_get(value_and_gradient(student, teacher))
    losses, gradient = jax.device_get(
        value_and_gradient(scale * student, scale * teacher)
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    size = np.abs(slope).max()
    np.testing.assert_allclose(scale * gradient, slope, rtol=1e-4, atol=1e-5 * size)


@every_loss
def test_rows_that_are_equal_stay_finite(case):
    student, teacher = features(case, 7)
    student[1:3], teacher[2:5] = student[0], teacher[1]
    assert finite(evaluate(case.loss, parameters(case), student, teacher))
    student[:] = student[0]
    assert finite(evaluate(case.loss, parameters(case), student, teacher))


one_of_each = pytest.mark.parametrize(
    "case", {type(case.loss): case for case in LOSSES}.values(), ids=named
)


@one_of_each
def test_half_precision_on_four_devices_equals_single_on_one(case):
    mesh = data_mesh()
    assert mesh.size == 4
    student, teacher = features(case, 9)
    student, teacher = student.astype(jnp.bfloat16), teacher.astype(np.float16)
    params = parameters(case)
    losses, gradient, own_gradient = evaluate(
        case.loss,
        replicate(params, mesh),
        *shard_batch((student, teacher, LABELS), mesh),
    )
    exact, exact_gradient, exact_own = evaluate(
        case.loss, params, np.float32(student), np.float32(teacher)
    )
    assert losses.dtype == np.float32 and gradient.dtype == student.dtype
    same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    same(losses, exact)
    same(np.float32(gradient), exact_gradient, rtol=1e-2, atol=1e-4)
    jax.tree.map(same, own_gradient, exact_own)


@one_of_each
def test_eager_equals_compiled(case):
    student, teacher = features(case, 10)
    params = parameters(case)
    expected, _, _ = evaluate(case.loss, params, student, teacher)
    given = map(jnp.asarray, (student, teacher, LABELS, np.ones(ROWS, bool)))
    found = call(case.loss, params, *given)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@every_loss
def test_only_coupled_losses_depend_on_other_rows(case):
    student, teacher = features(case, 11)
    params = parameters(case)
    losses, _, _ = evaluate(case.loss, params, student, teacher)
    for array in (student, teacher):
        array[1:] = array[1:] ** 3 + 1
    found, _, _ = evaluate(case.loss, params, student, teacher)
    assert np.allclose(found[0], losses[0], rtol=1e-5) != case.coupled


@every_loss
def test_shapes_that_differ_are_refused(case, monkeypatch):
    # The tests' type checker would be the first to complain.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    student, teacher = map(jnp.asarray, features(case, 12))
    where = jnp.ones(ROWS, bool)
    for wrong in (teacher[:1], teacher[:-1], teacher[..., None]):
        with pytest.raises(ValueError, match=re.escape(str(wrong.shape))):
            call(
                case.loss, parameters(case), student, wrong, jnp.asarray(LABELS), where
            )


POSITIONAL = [case for case in LOSSES if isinstance(case.loss, PositionLoss)]


@pytest.mark.slow
@pytest.mark.parametrize("case", POSITIONAL, ids=named)
def test_masked_positions_are_as_good_as_absent(case, x64):
    student, teacher = features(case, 13, dtype=np.float64)
    params = parameters(case, dtype=np.float64)
    kept = np.arange(5) < np.array([5, 1, 3, 4, 2, 5, 3, 0])[:, None]
    given = [
        jnp.asarray(np.where(kept[..., None], x, np.nan)) for x in (student, teacher)
    ]

    @jax.jit
    def total(student):
        losses = case.loss(student, given[1], params=params, where=jnp.asarray(kept))
        return jnp.sum(losses), losses

    gradient, losses = jax.device_get(jax.grad(total, has_aux=True)(given[0]))
    for i, count in enumerate(kept.sum(axis=1)):
        if count:
            (expected,) = case.definition(
                params, student[i : i + 1, :count], teacher[i : i + 1, :count], None
            )
            np.testing.assert_allclose(losses[i], expected, rtol=1e-9)
    assert losses[-1] == 0 and not gradient[~kept].any() and finite(gradient)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RKDDistance(read="last"), 'read is "mean", "first" or "all"'),  # pyrefly: ignore
        (lambda: AttentionMSE(heads="all"), 'heads is "each" or "mean"'),  # pyrefly: ignore
        (lambda: PKT(kernel="rbf"), "kernel is"),  # pyrefly: ignore
        (lambda: PKT(divergence="js"), "divergence is"),  # pyrefly: ignore
        (lambda: CRD(temperature=0.0), "temperature must be positive"),
        (lambda: CRD(width=0), "width must be at least 1"),
        (lambda: VID(variance=0.0), "variance must exceed"),
        (lambda: EmbeddingCompression(width=0), "width must be at least 1"),
        (
            lambda: EmbeddingCompression(distance=NormAndDirection()),
            "its projection has none",
        ),
        (lambda: NormAndDirection(class_means="all"), 'is "training" or "batch"'),  # pyrefly: ignore
        (lambda: WassersteinDependency(slope=0.0), "slope must be positive"),
        (lambda: WassersteinDependency(width=0), "width must be at least 1"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(make, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        make()
