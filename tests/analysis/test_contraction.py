"""Coefficients against channels written out, integrals and simulations."""

import functools
import itertools

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy import integrate, stats

from kd.analysis import contraction


def dropout_channel(inputs, rate):
    """Probabilities of every outcome of dropout for each of some inputs."""
    rows = []
    for x in inputs:
        row = {}
        for kept in itertools.product((False, True), repeat=len(x)):
            outcome = tuple(np.where(kept, x, 0.0))
            chance = np.prod(np.where(kept, 1 - rate, rate))
            row[outcome] = row.get(outcome, 0.0) + chance
        rows.append(row)
    return as_matrix(rows)


def dropconnect_channel(inputs, weights, rate):
    rows = []
    for x in inputs:
        row = {}
        for kept in itertools.product((False, True), repeat=weights.size):
            matrix = np.where(np.reshape(kept, weights.shape), weights, 0.0)
            outcome = tuple(np.round(matrix @ x, 9) + 0.0)
            chance = np.prod(np.where(kept, 1 - rate, rate))
            row[outcome] = row.get(outcome, 0.0) + chance
        rows.append(row)
    return as_matrix(rows)


def as_matrix(rows):
    outcomes = sorted({outcome for row in rows for outcome in row})
    return np.array([[row.get(outcome, 0.0) for outcome in outcomes] for row in rows])


def kl(p, q):
    kept = p > 0
    return float(np.sum(p[kept] * np.log(p[kept] / q[kept])))


def largest_kl_ratio(channel, random, num=300):
    """Over random pairs of input distributions, many of them close to each other."""
    ratios = []
    for _ in range(num):
        p, q = random.dirichlet(np.ones(len(channel)), 2)
        p = q + (0.05 + 0.9 * random.uniform() ** 3) * (p - q)
        ratios.append(kl(p @ channel, q @ channel) / kl(p, q))
    return max(ratios)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_dropout_written_out(rate, width):
    random = np.random.default_rng(0)
    eta = contraction.dropout(rate, width)
    apart = dropout_channel(random.normal(size=(4, width)), rate)
    np.testing.assert_allclose(contraction.dobrushin(apart), eta, rtol=1e-12)
    largest = largest_kl_ratio(apart, random)
    assert largest <= eta * (1 + 1e-9)
    # Inputs that differ in every unit are told apart unless all units are dropped.
    assert largest > 0.99 * eta
    # Those that agree in a unit, or are 0 in one, can only be harder to tell apart.
    alike = random.normal(size=(4, width))
    alike[1:3, 0], alike[3, -1] = alike[0, 0], 0.0
    assert contraction.dobrushin(dropout_channel(alike, rate)) <= eta + 1e-12


def test_dropout_of_a_network_drops_all_that_often():
    """As the layers of our networks do it."""
    rate, width, num = 0.6, 3, 40_000
    layer = nn.Dropout(rate, deterministic=False)
    kept = layer.apply({}, np.ones((num, width)), rngs={"dropout": jax.random.key(0)})
    survived = np.any(np.asarray(kept) != 0, axis=1).mean()
    eta = contraction.dropout(rate, width)
    assert abs(survived - eta) < 4 * np.sqrt(eta * (1 - eta) / num)


@pytest.mark.parametrize("rate", [0.2, 0.7])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 3), (3, 2)])
def test_dropconnect_written_out(rate, shape):
    random = np.random.default_rng(1)
    weights = random.normal(size=shape)
    channel = dropconnect_channel(random.normal(size=(3, shape[1])), weights, rate)
    eta = contraction.dropconnect(rate, shape[1], shape[0])
    np.testing.assert_allclose(contraction.dobrushin(channel), eta, rtol=1e-9)
    assert largest_kl_ratio(channel, random) <= eta * (1 + 1e-9)


@pytest.mark.parametrize("deviation", [0.3, 1.0, 4.0])
def test_gaussian_noise_by_integration(deviation):
    diameter = 2.0
    p, q = (
        functools.partial(stats.norm.pdf, loc=mean, scale=deviation)
        for mean in (0.0, diameter)
    )
    eta = contraction.gaussian_noise(deviation, diameter)
    wide = (-9 * deviation, diameter + 9 * deviation)
    variation, _ = integrate.quad(
        lambda y: 0.5 * abs(p(y) - q(y)), *wide, points=[diameter / 2]
    )
    np.testing.assert_allclose(eta, variation, rtol=1e-6)
    for a, b in ((0.5, 0.5001), (0.1, 0.3), (0.02, 0.9)):

        def density(share, y):
            return (1 - share) * p(y) + share * q(y)

        def integrand(y, a=a, b=b):
            return density(a, y) * np.log(density(a, y) / density(b, y))

        after, _ = integrate.quad(integrand, *wide)
        before = kl(np.array([1 - a, a]), np.array([1 - b, b]))
        assert after <= eta * before * (1 + 1e-6)


def test_gaussian_noise_in_a_simulation():
    """How often the best guess, the nearer of two corners of a box, is right."""
    deviation, width, num = 2.0, 4, 40_000
    corner = np.ones(width)
    noise = deviation * np.random.default_rng(2).normal(size=(num, width))
    right = ((corner + noise) @ corner > 0).mean()
    diameter = contraction.box_diameter(1.0, width)
    assert diameter == np.linalg.norm(2 * corner)
    # Total variation is twice the advantage over guessing.
    eta = contraction.gaussian_noise(deviation, diameter)
    assert abs((2 * right - 1) - eta) < 4 * 2 * np.sqrt(right * (1 - right) / num)


def test_narrower_and_noisier_layers_contract_more():
    assert contraction.dropout(0.5, 2) < contraction.dropout(0.5, 8) < 1
    assert contraction.dropout(0.9, 2) < contraction.dropout(0.1, 2)
    assert contraction.dropconnect(0.5, 2, 2) < contraction.dropconnect(0.5, 2, 3)
    noise = [contraction.gaussian_noise(s, 2.0) for s in (0.4, 1.0, 10.0)]
    assert noise == sorted(noise, reverse=True) and noise[-1] > 0 and noise[0] < 1
    assert contraction.dropout(0.0, 3) == 1.0 and contraction.dropout(1.0, 3) == 0.0
    assert contraction.gaussian_noise(1.0, 0.0) == 0.0


def test_layers_one_after_the_other():
    """The product bounds what two channels in a row leave of a divergence."""
    random = np.random.default_rng(3)
    first = dropout_channel(random.normal(size=(4, 2)), 0.5)
    second = random.dirichlet(np.ones(3), first.shape[1])
    etas = [contraction.dropout(0.5, 2), contraction.dobrushin(second)]
    for _ in range(50):
        p, q = random.dirichlet(np.ones(4), 2)
        left = [kl(p, q), kl(p @ first, q @ first)]
        left.append(kl(p @ first @ second, q @ first @ second))
        assert np.all(left <= contraction.after_layers(left[0], etas) + 1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contraction.dropout(1.5, 2), r"rate must lie in \[0, 1\], got 1.5"),
        (lambda: contraction.dropout(0.5, 0), "width must be at least 1, got 0"),
        (lambda: contraction.dropconnect(0.5, 1, 0), "num_outputs must be at least 1"),
        (lambda: contraction.gaussian_noise(0.0, 1.0), "deviation must be positive"),
        (lambda: contraction.gaussian_noise(1.0, -1.0), "diameter must not be negat"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()
