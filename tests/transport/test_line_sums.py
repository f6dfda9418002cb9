"""Sums over a line, by blocks and by recurrences, against matrices of distances."""

import jax.numpy as jnp
import numpy as np
import pytest

from kd.transport import line_blocks, line_scans


def flat(blocks):
    return np.asarray(blocks).T.reshape(-1)


@pytest.fixture(params=[line_blocks, line_scans], ids=["blocks", "scans"])
def layout(request):
    return request.param


@pytest.fixture(params=[1, 2, 16, 17, 33, 700])
def line(request, layout, x64):
    """Sites, some of them equal, weights of both signs, and the distance matrix."""
    random = np.random.default_rng(request.param)
    sites = np.sort(random.random(request.param).round(2))
    blocks = layout.cut(jnp.asarray(sites))
    assert np.array_equal(flat(blocks)[: len(sites)], sites)
    weights = jnp.asarray(random.normal(size=blocks.shape))
    distance = 7 * np.abs(flat(blocks)[:, None] - flat(blocks)[None, :])
    return layout.Distances.of(blocks, 7.0), weights, distance


def test_sums(line):
    distances, weights, distance = line
    total, tilt = distances.decays().sums(weights)
    kernel = np.exp(-distance)
    difference = np.tril(kernel, -1) - np.triu(kernel, 1)
    np.testing.assert_allclose(flat(total), kernel @ flat(weights), atol=1e-12)
    np.testing.assert_allclose(flat(tilt), difference @ flat(weights), atol=1e-12)


def test_sums_in_other_units(line):
    distances, weights, distance = line
    unit = jnp.asarray(np.random.default_rng(1).normal(size=weights.shape))
    total, tilt = distances.decays(unit).sums(weights)
    kernel = np.exp(flat(unit)[None, :] - flat(unit)[:, None] - distance)
    difference = np.tril(kernel, -1) - np.triu(kernel, 1)
    for found, matrix in [(total, kernel), (tilt, difference)]:
        np.testing.assert_allclose(
            flat(found), matrix @ flat(weights), rtol=1e-11, atol=1e-11
        )


def test_largest(line):
    distances, weights, distance = line
    absent = weights < 0
    values = jnp.where(absent, -jnp.inf, weights)
    expected = (flat(values)[None, :] - distance).max(axis=1)
    np.testing.assert_allclose(flat(distances.largest(values)), expected, atol=1e-13)
