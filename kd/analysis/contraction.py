"""How much of a difference between two distributions a noisy layer lets through.

A channel's contraction coefficients are the largest ratios

    eta_KL = sup KL(P K | Q K) / KL(P | Q),   eta_TV = sup |P K - Q K| / |P - Q|

of distances after it to distances before it; eta_KL <= eta_TV, which is Dobrushin's
coefficient, the largest total variation between what two inputs give. So a divergence
between training and test distributions of a network's input is, after layers with these
coefficients, at most their product times what it was: narrower layers and more of them
contract more.

Source: he2024information, section IV, and the data processing inequalities of
polyanskiy2017strong. The formulas are derived here from the layers' definitions.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float


def dropout(rate: float, width: int) -> float:
    """Of dropout on a layer's output, each unit dropped by itself.

        eta_KL = eta_TV = 1 - rate^width

    Equal for inputs that differ in every unit and are 0 in none: then nothing is
    lost but where all units are dropped. What is kept may be rescaled.

    Args:
        rate: of dropping a unit.
        width: number of units.
    """
    _check_rate(rate)
    _check_count("width", width)
    return 1 - rate**width


def dropconnect(rate: float, num_inputs: int, num_outputs: int) -> float:
    """Of a linear layer whose weights are dropped one by one, anew for every example.

        eta_KL <= eta_TV <= 1 - rate^(num_inputs num_outputs)

    eta_TV is equal to it for weights and inputs in general position. Applied to the
    layer's output, whatever pointwise function follows.

    Args:
        rate: of dropping a weight.
        num_inputs: of the layer.
        num_outputs: of the layer.
    """
    _check_rate(rate)
    _check_count("num_inputs", num_inputs)
    _check_count("num_outputs", num_outputs)
    return 1 - rate ** (num_inputs * num_outputs)


def gaussian_noise(deviation: float, diameter: float) -> float:
    """Of normal noise added to a layer's output.

        eta_TV = 2 Phi(diameter / (2 deviation)) - 1 >= eta_KL

    Args:
        deviation: of the noise on every unit.
        diameter: largest Euclidean distance of two outputs, see `box_diameter`.
    """
    if not deviation > 0:
        raise ValueError(f"deviation must be positive, got {deviation}")
    if not diameter >= 0:
        raise ValueError(f"diameter must not be negative, got {diameter}")
    return math.erf(diameter / (2 * math.sqrt(2) * deviation))


def box_diameter(bound: float, width: int) -> float:
    """The diameter of [-bound, bound]^width, such as of tanh units with bound 1."""
    _check_count("width", width)
    return 2 * bound * math.sqrt(width)


def dobrushin(channel: Float[np.ndarray, "x y"]) -> float:
    """eta_TV of a channel between finite sets, exactly.

        max over two inputs of 1/2 sum_y |K(y | x) - K(y | x')|

    Args:
        channel: probabilities of every output given every input; rows sum to 1.
    """
    pairs = combinations(channel, 2)
    return max((0.5 * float(np.abs(a - b).sum()) for a, b in pairs), default=0.0)


def after_layers(
    divergence: float, coefficients: Sequence[float]
) -> Float[np.ndarray, "l"]:
    """What is at most left of a divergence after each of several noisy layers.

        divergence prod_{j <= l} eta_j,   l = 0, ..., L

    Args:
        divergence: before the first, nats.
        coefficients: eta of every layer, in order.
    """
    return divergence * np.cumprod([1.0, *coefficients])


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must lie in [0, 1], got {rate}")


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
