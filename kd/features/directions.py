"""Distance of directions: what patient distillation takes of every layer."""

import dataclasses

import jax.numpy as jnp

from kd.features.feature import VectorLoss
from kd.features.layers import Read
from kd.features.norms import unit
from kd.features.projection import fitted, fitting_parameters


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormalizedMSE(VectorLoss):
    """Squared distance of the features' directions.

        losses_i = |s_i / |s_i| - t_i / |t_i||^2

    without unit, between 0 and 4: twice one minus the cosine. Where the widths differ
    a learned linear projection of the student comes first. See `kd.features.pkd`.

    Source: sun2019patient, on the first token; students there are as wide as
    the teacher. Their code divides by the width as well.
    """

    name = "normalized_mse"
    read: Read = "first"

    def parameters(self, key, student_width, teacher_width, num_classes):
        del num_classes
        return fitting_parameters(key, student_width, teacher_width)

    def rows(self, params, student, teacher, labels, where):
        del labels, where
        gaps = unit(fitted(params, student, teacher)) - unit(teacher)
        return jnp.sum(jnp.square(gaps), axis=1)
