"""Hints: the student's features regressed onto the teacher's, position by position."""

import dataclasses

import jax.numpy as jnp

from kd.features.feature import PositionLoss, position_mean
from kd.features.projection import linear, linear_parameters


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hints(PositionLoss):
    """Mean squared error of linearly projected features.

        losses_i = 1/|P_i| sum_p 1/e |s_ip W + b - t_ip|^2

    over the positions P_i of example i and the e channels of the teacher; squared
    units of the teacher's features. W and b are learned with the student. On feature
    maps the projection is a convolution with 1 x 1 points.

    Source: romero2015fitnets, who sum halves of the squares, train up to the hint
    before the rest, and map resolutions by the regressor's stride. The mdistiller code
    has a batch norm and a ReLU after the projection.
    """

    name = "hints"

    def parameters(self, key, student_width, teacher_width, num_classes):
        del num_classes
        return linear_parameters(key, student_width, teacher_width)

    def rows(self, params, student, teacher, where):
        gaps = linear(params, student) - teacher
        return position_mean(jnp.mean(jnp.square(gaps), axis=-1), where)
