"""Transport on a line against matrices, finite differences and the authors' code."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.divergences import SinKD
from kd.transport import line, solver

GOLDEN = np.load(
    pathlib.Path(__file__).parents[1] / "golden" / "sinkd_batchwise_glue.npz"
)


def row_costs(*arrays, **settings):
    return line.solve(*arrays, **settings).costs


def dense(x, y, row_mass, column_mass, *, epsilon, num_iters, scale=2.0):
    """The definition, with n x m matrices of logarithms."""
    difference = x[:, None] - y[None, :]
    # The derivative of jnp.abs at 0 is 1, not 0.
    cost = scale * difference * jax.lax.stop_gradient(jnp.sign(difference))
    log_rows, log_columns = jnp.log(row_mass), jnp.log(column_mass)

    def iterate(potentials, _):
        _, g = potentials
        f = log_rows - jax.nn.logsumexp(g[None, :] - cost / epsilon, axis=1)
        g = log_columns - jax.nn.logsumexp(f[:, None] - cost / epsilon, axis=0)
        return (f, g), None

    start = (jnp.zeros_like(x), jnp.zeros_like(y))
    (f, g), _ = jax.lax.scan(iterate, start, length=num_iters)
    plan = jnp.exp(f[:, None] + g[None, :] - cost / epsilon)
    return jnp.sum(plan * cost, axis=1)


def uniform(n, m, seed=0):
    random = np.random.default_rng(seed)
    x, y = random.beta(0.5, 0.5, n), random.beta(0.5, 0.8, m)
    return x, y, np.full(n, 1 / n), np.full(m, 1 / m)


def weighted(n, m, seed=0):
    x, y, _, _ = uniform(n, m, seed)
    random = np.random.default_rng(seed)
    a, b = random.random(n) + 0.01, random.random(m) + 0.01
    return x, y, a / a.sum(), b / b.sum()


def rounded(n, m):
    """Many points coincide, rows with rows, columns with columns, and across."""
    x, y, a, b = weighted(n, m)
    return x.round(1), y.round(1), a, b


def one_hot(n, m):
    x, y, a, b = weighted(n, m)
    return x.round(), y.round(), a, b


def equal(n):
    x, _, a, _ = uniform(n, n)
    return x, x[::-1].copy(), a, a


CASES = {
    "1": uniform(1, 1),
    "2": uniform(2, 2),
    "3": uniform(3, 3),
    "33": uniform(33, 33),
    "500": uniform(500, 500),
    # Of one shape, because every shape is compiled.
    "weighted": weighted(33, 33),
    "rounded": rounded(33, 33),
    "one_hot": one_hot(33, 33),
    "equal": equal(33),
    "all_at_one_point": (np.ones(33), np.ones(33), *weighted(33, 33)[2:]),
}

KERNEL = {"largest_cost": 2.0}
LOG = {"largest_cost": float("inf")}
BLOCKS, SCANS = 10**9, 0  # line.LARGEST_IN_BLOCKS for each, whatever the size


@pytest.fixture(params=[BLOCKS, SCANS], ids=["blocks", "scans"])
def layout(request, monkeypatch):
    monkeypatch.setattr(line, "LARGEST_IN_BLOCKS", request.param)


@pytest.fixture(
    params=[(KERNEL, BLOCKS), (KERNEL, SCANS), (LOG, SCANS)],
    ids=["blocks", "scans", "log"],
)
def bound(request, monkeypatch):
    """Each way to compute the sums there is."""
    setting, largest_in_blocks = request.param
    monkeypatch.setattr(line, "LARGEST_IN_BLOCKS", largest_in_blocks)
    return setting


@functools.partial(jax.jit, static_argnames=("costs", "settings", "in_blocks"))
def value_and_gradient(costs, x, y, a, b, cotangent, settings=(), in_blocks=None):
    del in_blocks  # tells apart what is compiled
    settings = {"epsilon": 0.1, "num_iters": 20} | dict(settings)
    value, pull_back = jax.vjp(lambda x: costs(x, y, a, b, **settings), x)
    return value, pull_back(cotangent)[0]


def on_line(*arrays, **settings):
    arrays = map(jnp.asarray, arrays)
    return value_and_gradient(
        row_costs, *arrays, tuple(settings.items()), line.LARGEST_IN_BLOCKS
    )


@functools.cache
def exact(case, settings):
    """By the definition, in double precision."""
    problem = map(jnp.float64, CASES[case])
    return value_and_gradient(dense, *problem, cotangents(case), settings)


def cotangents(case):
    # All different, so that they tell apart even the rows of one point.
    return jnp.linspace(0.5, 1.5, len(CASES[case][0]))


def check(case, dtype, tolerance, *, bound, **settings):
    arrays = (jnp.asarray(array, dtype) for array in (*CASES[case], cotangents(case)))
    found = on_line(*arrays, **bound, **settings)
    expected = exact(case, tuple(settings.items()))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        largest = max(np.abs(theirs).max(), 1e-3 / len(ours))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("case", CASES)
def test_equals_the_dense_plan(case, bound, x64):
    dtype, tolerance = ("float32", 1e-5) if bound is KERNEL else ("float64", 1e-10)
    check(case, dtype, tolerance, bound=bound)


@pytest.mark.parametrize("case", ["33", "rounded", "one_hot"])
@pytest.mark.usefixtures("layout")
def test_equals_the_dense_plan_to_the_last_digits(case, x64):
    check(case, "float64", 1e-10, bound=KERNEL)


@pytest.mark.parametrize(
    ("epsilon", "dtype", "tolerance"),
    [
        (10.0, "float32", 1e-5),
        (0.01, "float64", 1e-10),
        (1e-3, "float64", 1e-10),
        # Exponents in the thousands: matrices of float32 are no better.
        (1e-3, "float32", 5e-4),
    ],
)
@pytest.mark.parametrize("case", ["rounded", "one_hot"])
def test_any_epsilon(case, epsilon, dtype, tolerance, x64):
    check(case, dtype, tolerance, bound=KERNEL, epsilon=epsilon)


@pytest.mark.usefixtures("layout")
def test_a_single_iteration(x64):
    check("rounded", "float64", 1e-10, bound=KERNEL, num_iters=1)


def test_points_out_of_reach_of_each_other(x64):
    # exp(-2 / 0.001) is 0 in every precision.
    x, y, mass = np.array([0.0, 1e-3]), np.array([1.0, 0.999]), np.full(2, 0.5)
    costs, gradient = on_line(x, y, mass, mass, np.ones(2), epsilon=1e-3)
    np.testing.assert_allclose(costs.sum(), 2 * 0.999, rtol=1e-12)
    np.testing.assert_allclose(gradient.sum(), -2, rtol=1e-12)


def test_gradient_is_that_of_finite_differences(bound, x64):
    x, y, a, b = weighted(9, 6)
    cotangent = np.linspace(0.5, 1.5, len(x))
    _, gradient = on_line(x, y, a, b, cotangent, **bound)
    h = 1e-6
    for i, step in enumerate(h * np.eye(len(x))):
        above, _ = on_line(x + step, y, a, b, cotangent, **bound)
        below, _ = on_line(x - step, y, a, b, cotangent, **bound)
        difference = cotangent @ (above - below) / (2 * h)
        np.testing.assert_allclose(gradient[i], difference, rtol=1e-6, atol=1e-9)


def test_order_of_points_does_not_matter(bound, x64):
    x, y, a, b = CASES["rounded"]
    cotangent = np.linspace(0.5, 1.5, len(x))
    random = np.random.default_rng(0)
    rows, columns = random.permutation(len(x)), random.permutation(len(y))
    plain = on_line(x, y, a, b, cotangent, **bound)
    shuffled = on_line(
        x[rows], y[columns], a[rows], b[columns], cotangent[rows], **bound
    )
    for before, after in zip(plain, shuffled, strict=True):
        np.testing.assert_allclose(after, before[rows], rtol=1e-10, atol=1e-14)


def test_rows_without_mass_are_as_good_as_dropped(bound, x64):
    x, y, a, b = rounded(33, 33)
    rows, columns = np.arange(33) % 3 > 0, np.arange(33) % 4 > 0
    a, b = np.where(rows, a, 0), np.where(columns, b, 0)
    a, b = a / a.sum(), b / b.sum()
    cotangent = np.linspace(0.5, 1.5, 33)
    kept = on_line(x[rows], y[columns], a[rows], b[columns], cotangent[rows], **bound)
    for garbage in (0.5, -1e30, np.nan):
        dirty_x, dirty_y = np.where(rows, x, garbage), np.where(columns, y, garbage)
        found = on_line(dirty_x, dirty_y, a, b, cotangent, **bound)
        for ours, theirs in zip(found, kept, strict=True):
            np.testing.assert_allclose(ours[rows], theirs, rtol=1e-10, atol=1e-14)
            assert not ours[~rows].any()


def test_nothing_left_gives_zero(bound):
    x, y, a, b = map(np.float32, CASES["33"])
    for found in on_line(x, y, 0 * a, 0 * b, np.ones_like(x), **bound):
        assert not found.any()


@pytest.mark.slow
@pytest.mark.parametrize("num_iters", [1, 7])
def test_sums_and_errors_are_those_of_the_matrix(bound, num_iters, x64):
    x, y, a, b = map(jnp.asarray, CASES["rounded"])
    settings = {"epsilon": 0.1, "num_iters": num_iters}
    found = line.solve(x, y, a, b, **settings, **bound)
    cost = 2 * jnp.abs(x[:, None] - y[None, :])
    expected = solver.solve(cost, a, b, **settings)
    assert found.errors.shape == (num_iters,)
    np.testing.assert_allclose(found.errors, expected.errors, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(found.sums, expected.plan.sum(axis=1), rtol=1e-10)


def test_only_x_has_a_gradient():
    def total(*arrays):
        return row_costs(*arrays, epsilon=0.1, num_iters=2).sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(
        *map(np.float32, CASES["3"])
    )
    assert gradients[0].all()
    assert not any(gradient.any() for gradient in gradients[1:])


def test_groups_by_vmap(bound, x64):
    groups = [(*weighted(9, 6, seed), np.linspace(0.5, 1.5, 9)) for seed in range(3)]
    stacked = (jnp.asarray(np.stack(arrays)) for arrays in zip(*groups, strict=True))
    found = jax.vmap(functools.partial(on_line, **bound))(*stacked)
    for g, group in enumerate(groups):
        for ours, alone in zip(found, on_line(*group, **bound), strict=True):
            np.testing.assert_allclose(ours[g], alone, rtol=1e-10, atol=1e-14)


def test_a_point_that_is_not_a_number_is_not_hidden(bound):
    x, y, a, b = (array.astype(np.float32) for array in CASES["33"])
    x[16] = np.nan
    for found in on_line(x, y, a, b, np.ones_like(x), **bound):
        assert np.isnan(found).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_points_are_sorted(dtype, x64):
    points = np.random.default_rng(0).normal(size=100).astype(dtype)
    points[:6] = 0.0, -0.0, np.inf, -np.inf, np.finfo(dtype).tiny, 1.0
    np.testing.assert_array_equal(line._sorted(jnp.asarray(points)), np.sort(points))


@pytest.mark.slow
def test_half_precision_is_lifted():
    x, y, a, b = (jnp.asarray(array, jnp.float32) for array in CASES["33"])
    x, y = x.astype(jnp.bfloat16), y.astype(jnp.float16)
    settings = {"epsilon": 0.1, "num_iters": 5}
    found = row_costs(x, y, a, b, **settings)
    expected = row_costs(x.astype(jnp.float32), y.astype(jnp.float32), a, b, **settings)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, expected)


def binary_sinkd(student, teacher, where):
    """What SinKD gives two classes."""
    x, y = jax.nn.softmax(student / 2)[:, 0], jax.nn.softmax(teacher / 2)[:, 0]
    mass = where / jnp.sum(where)
    costs = row_costs(x, y, mass, mass, epsilon=0.1, num_iters=20, largest_cost=2.0)
    return jnp.sum(where) * costs


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_is_sinkd_of_two_classes(rows, x64):
    student, teacher = np.random.default_rng(rows).normal(size=(2, rows, 2))
    teacher[0] = student[-1]
    student, teacher = jnp.asarray(student), jnp.asarray(teacher)
    where = jnp.arange(rows) % 3 != 1
    weights = jnp.linspace(0.5, 1.5, rows)

    # The teacher is an argument: as a constant it would be rounded by the compiler.
    @functools.partial(jax.jit, static_argnums=0)
    def evaluate(losses, student, teacher):
        return jax.value_and_grad(
            lambda student: weights @ losses(student, teacher, where=where)
        )(student)

    expected, expected_gradient = evaluate(SinKD(), student, teacher)
    found, gradient = evaluate(binary_sinkd, student, teacher)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", ["b16c2", "b32c2", "b4c2_sharp"])
def test_authors_code(case, x64):
    student, teacher = (
        jnp.asarray(GOLDEN[f"{case}/{side}_logits"]) for side in ("student", "teacher")
    )
    every_row = jnp.ones(len(student), bool)

    def loss(student):
        return 0.001 * binary_sinkd(student, teacher, every_row).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(student)
    expected = GOLDEN[f"{case}/grad_student_logits"]
    np.testing.assert_allclose(value, GOLDEN[f"{case}/loss"], rtol=1e-9)
    np.testing.assert_allclose(
        gradient, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max()
    )


def compile_for(size):
    points = jax.ShapeDtypeStruct((size,), jnp.float32)
    return value_and_gradient.lower(
        row_costs, *[points] * 5, tuple(KERNEL.items())
    ).compile()


@pytest.mark.slow
def test_memory_grows_with_the_points_not_with_their_square():
    size = 4096
    memory = compile_for(size).memory_analysis()
    assert memory is not None
    assert 0 < memory.temp_size_in_bytes < 1000 * size < size**2


@pytest.mark.slow
def test_a_batch_of_65536():
    size = 65_536
    x, y, a, b = map(jnp.float32, uniform(size, size))
    compiled = compile_for(size)
    costs, gradient = compiled(x, y, a, b, jnp.ones(size))
    assert np.all(np.isfinite(gradient)) and np.all(costs > 0)
    # Moving all points changes the cost by what their gradients add up to.
    h = 1e-2
    above, _ = compiled(x + h, y, a, b, jnp.ones(size))
    below, _ = compiled(x - h, y, a, b, jnp.ones(size))
    difference = (above.sum() - below.sum()) / (2 * h)
    np.testing.assert_allclose(gradient.sum(), difference, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be positive, got 0.0"),
        ({"scale": -1.0}, "scale must be positive, got -1.0"),
        ({"num_iters": 0}, "num_iters must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    settings = {"epsilon": 0.1, "num_iters": 20} | wrong
    with pytest.raises(ValueError, match=message):
        row_costs(*map(jnp.float32, CASES["3"]), **settings)
