"""Sums over a line against the matrix of all distances."""

import jax.numpy as jnp
import numpy as np
import pytest

from kd.transport import line_sums


def flat(blocks):
    return np.asarray(blocks).T.reshape(-1)


@pytest.fixture(params=[1, 2, 16, 17, 33, 700])
def line(request, x64):
    """Sites, some of them equal, weights of both signs, and the distance matrix."""
    random = np.random.default_rng(request.param)
    sites = np.sort(random.random(request.param).round(2))
    blocks = line_sums.cut(jnp.asarray(sites))
    assert np.array_equal(flat(blocks)[: len(sites)], sites)
    weights = jnp.asarray(random.normal(size=blocks.shape))
    distance = 7 * np.abs(flat(blocks)[:, None] - flat(blocks)[None, :])
    return line_sums.distances(blocks, 7.0), weights, distance


def test_sums(line):
    ways, weights, distance = line
    left, right = line_sums.sums(line_sums.decays(ways), weights)
    kernel = np.exp(-distance)
    for found, part in [(left, np.tril(kernel, -1)), (right, np.triu(kernel, 1))]:
        np.testing.assert_allclose(flat(found), part @ flat(weights), atol=1e-12)


def test_sums_in_other_units(line):
    ways, weights, distance = line
    unit = jnp.asarray(np.random.default_rng(1).normal(size=weights.shape))
    left, right = line_sums.sums(line_sums.decays(ways, unit), weights)
    kernel = np.exp(flat(unit)[None, :] - flat(unit)[:, None] - distance)
    for found, part in [(left, np.tril(kernel, -1)), (right, np.triu(kernel, 1))]:
        np.testing.assert_allclose(
            flat(found), part @ flat(weights), rtol=1e-11, atol=1e-11
        )


def test_largest(line):
    ways, weights, distance = line
    absent = weights < 0
    values = jnp.where(absent, -jnp.inf, weights)
    expected = (flat(values)[None, :] - distance).max(axis=1)
    np.testing.assert_allclose(
        flat(line_sums.largest(ways, values)), expected, atol=1e-13
    )
