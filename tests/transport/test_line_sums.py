"""Sums over a line, by blocks and by recurrences, against matrices of distances."""

import jax.numpy as jnp
import numpy as np
import pytest

from kd.transport import line, line_blocks, line_scans


def flat(blocks):
    return np.asarray(blocks).T.reshape(-1)


@pytest.fixture(params=[1, 2, 16, 17, 33, 700])
def points(request, x64):
    """Sorted, some of them equal."""
    random = np.random.default_rng(request.param)
    return np.sort(random.random(request.param).round(2))


def problem(layout, points):
    """Distances of sites, weights of both signs, and the matrix of distances."""
    blocks = line._cut(jnp.asarray(points), layout.num_blocks(len(points)))
    sites = flat(blocks)
    assert np.array_equal(sites[: len(points)], points)
    weights = np.random.default_rng(len(points)).normal(size=blocks.shape)
    distance = 7 * np.abs(sites[:, None] - sites[None, :])
    return layout.Distances.of(blocks, 7.0), jnp.asarray(weights), distance


@pytest.mark.parametrize("layout", [line_blocks, line_scans], ids=["blocks", "scans"])
def test_sums(layout, points):
    distances, weights, distance = problem(layout, points)
    total, tilt = distances.decays().sums(weights)
    kernel = np.exp(-distance)
    difference = np.tril(kernel, -1) - np.triu(kernel, 1)
    np.testing.assert_allclose(flat(total), kernel @ flat(weights), atol=1e-12)
    np.testing.assert_allclose(flat(tilt), difference @ flat(weights), atol=1e-12)


def test_sums_in_other_units(points):
    distances, weights, distance = problem(line_scans, points)
    unit = jnp.asarray(np.random.default_rng(1).normal(size=weights.shape))
    total, tilt = distances.decays(unit).sums(weights)
    kernel = np.exp(flat(unit)[None, :] - flat(unit)[:, None] - distance)
    difference = np.tril(kernel, -1) - np.triu(kernel, 1)
    for found, matrix in [(total, kernel), (tilt, difference)]:
        np.testing.assert_allclose(
            flat(found), matrix @ flat(weights), rtol=1e-11, atol=1e-11
        )


@pytest.mark.slow
def test_largest(points):
    distances, weights, distance = problem(line_scans, points)
    absent = weights < 0
    values = jnp.where(absent, -jnp.inf, weights)
    expected = (flat(values)[None, :] - distance).max(axis=1)
    np.testing.assert_allclose(flat(distances.largest(values)), expected, atol=1e-13)
    nothing = jnp.full_like(values, -jnp.inf)
    assert np.all(np.isneginf(distances.largest(nothing)))
