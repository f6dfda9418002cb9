"""Learnable maps between widths: the objective's own parameters."""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from kd.features.layers import Misfit
from kd.types import Params


def linear_parameters(key: PRNGKeyArray, width: int, new_width: int) -> Params:
    """Of x W + b: W normal with variance 1 / width, b zero."""
    kernel = jax.nn.initializers.lecun_normal()(key, (width, new_width))
    return {"kernel": kernel, "bias": jnp.zeros(new_width)}


def linear(params: Params, values: Float[Array, "... d"]) -> Float[Array, "... e"]:
    """x W + b.

    Raises:
        Misfit: the parameters are of another width, or there are none.
    """
    width = values.shape[-1]
    if not params:
        raise Misfit(f"params: there is no projection of features of width {width}")
    if len(params["kernel"]) != width:
        raise Misfit(
            f"the projection is of features of width {len(params['kernel'])}, these "
            f'have {width}; with read="all" the width must be the same in all batches'
        )
    return values @ params["kernel"] + params["bias"]


def fitting_parameters(key: PRNGKeyArray, width: int, new_width: int) -> Params:
    """Of a linear map between different widths; () between equal ones."""
    return () if width == new_width else linear_parameters(key, width, new_width)


def fitted(
    params: Params, student: Float[Array, "... d"], teacher: Float[Array, "... e"]
) -> Float[Array, "... e"]:
    """The student at the teacher's width: as it is, or projected.

    Raises:
        Misfit: the widths differ and there is no projection between them.
    """
    width = student.shape[-1], teacher.shape[-1]
    if not params and width[0] == width[1]:
        return student
    if not params or params["kernel"].shape != width:
        raise Misfit(
            f"the student is {width[0]} wide, the teacher {width[1]}: this needs the "
            "projection that the loss makes of these widths, or a loss of relations, "
            "such as SimilarityPreserving, RKDDistance, PKT or CKA"
        )
    return linear(params, student)


def mlp_parameters(key: PRNGKeyArray, widths: Sequence[int]) -> Params:
    """Of linear maps from each width to the next."""
    keys = jax.random.split(key, len(widths) - 1)
    return [
        linear_parameters(key, *two)
        for key, two in zip(keys, pairwise(widths), strict=True)
    ]


def mlp(params: Params, values: Float[Array, "... d"]) -> Float[Array, "... e"]:
    """The linear maps with ReLU between them."""
    for layer in params[:-1]:
        values = jax.nn.relu(linear(layer, values))
    return linear(params[-1], values)
