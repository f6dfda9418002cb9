"""Centred kernel alignment: do two networks place the examples alike?"""

import dataclasses

import jax.numpy as jnp

from kd.features.feature import VectorLoss
from kd.features.norms import centred, gram, norm, scaled


@dataclasses.dataclass(frozen=True, kw_only=True)
class CKA(VectorLoss):
    """One minus the linear centred kernel alignment of student and teacher.

        K = S S',  L = T T'           of features centred over the batch
        loss = 1 - <K, L> / (|K| |L|)

    of which every example has an equal share; between 0 and 1, no unit. 0 where the
    features agree up to rotation and scale, 1 where those of one side are all equal.
    Couples the examples.

    Source: kornblith2019similarity, there a measure of trained networks.
    """

    name = "cka"

    def rows(self, params, student, teacher, labels, where):
        del params, labels
        ours, theirs = (
            gram(scaled(centred(x, where), axis=None)[0]).reshape(-1)
            for x in (student, teacher)
        )
        size = norm(ours) * norm(theirs)
        alignment = jnp.sum(ours * theirs) / jnp.where(size > 0, size, 1)
        return jnp.full(len(student), 1 - alignment)
