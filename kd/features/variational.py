"""Variational information distillation: the teacher as a Gaussian given the student."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from kd.features.feature import PositionLoss, position_mean
from kd.features.projection import mlp, mlp_parameters


@dataclasses.dataclass(frozen=True, kw_only=True)
class VID(PositionLoss):
    """Negative log-likelihood of the teacher's features under a learned Gaussian.

        losses_i = 1/|P_i| sum_p 1/e sum_c 1/2 ((mu(s_ip)_c - t_ipc)^2 / v_c + log v_c)

    over the positions P_i of example i and the e channels of the teacher; nats per
    channel, less the constant log(2 pi) / 2. The mean mu is a learned network of
    three layers with ReLU, the same at all positions, the variance v = softplus(a) +
    1e-5 is learned too. Their minimum bounds the mutual information of student and
    teacher from below, up to the teacher's entropy. May be negative.

    Args:
        student_layer: which of the student's layers.
        teacher_layer: which of the teacher's.
        variance: at the start.

    Source: ahn2019vid, as in RepDistiller's code, but for its lack of biases.
    """

    name = "vid"
    variance: float = 5.0

    def __post_init__(self) -> None:
        if not self.variance > _LEAST:
            raise ValueError(f"variance must exceed {_LEAST}, got {self.variance}")

    def parameters(self, key, student_width, teacher_width, num_classes):
        del num_classes
        widths = (student_width, *3 * [teacher_width])
        # The inverse of softplus, log(exp(v) - 1), without its overflow.
        above = self.variance - _LEAST
        start = above + math.log(-math.expm1(-above))
        return {
            "mean": mlp_parameters(key, widths),
            "variance": jnp.full(teacher_width, start),
        }

    def rows(self, params, student, teacher, where):
        variance = jax.nn.softplus(params["variance"]) + _LEAST
        gaps = mlp(params["mean"], student) - teacher
        losses = 0.5 * (jnp.square(gaps) / variance + jnp.log(variance))
        return position_mean(jnp.mean(losses, axis=-1), where)


_LEAST = 1e-5
