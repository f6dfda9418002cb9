"""Universal logit distillation: predictions compared without their vocabulary."""

import dataclasses

import jax.numpy as jnp

from kd.divergences.absolute import absolute_difference
from kd.divergences.cross_tokenizer import CrossTokenizerLoss
from kd.divergences.softened import log_softmax


@dataclasses.dataclass(frozen=True)
class ULD(CrossTokenizerLoss):
    """Wasserstein distance of predictions in which every class is as far as any other.

        losses_i = 1/l sum_j sum_k |p_ij(k) - q_ij(k)|

    with p_ij(k) the k-th largest probability of the student's j-th prediction, q_ij(k)
    of the teacher's, 0 beyond the size of its vocabulary, and l the length of the
    shorter of the two answers; what the longer has left is not compared. Between 0
    and 2 per sequence. Sees how sure the student is, not of what: which class has
    which probability comes from the other terms of a mix.

    Args:
        student_temperature: softens the student's predictions.
        teacher_temperature: softens the teacher's.
        skip_student_eos: leave out the student's last prediction, which is of the end
            of the sequence, where the teacher's answer has none.
        skip_teacher_eos: likewise the teacher's.

    Source: boizard2025uld. The mean over j and the common length are those of the
    authors' code, which divides by 0 where an answer is empty and multiplies by 1.5.
    """

    name = "uld"

    def compare(self, student, teacher, kept, teacher_kept):
        length = min(kept.shape[1], teacher_kept.shape[1])
        both = kept[:, :length] & teacher_kept[:, :length]
        p = _sorted(student[:, :length], self.student_temperature)
        q = _sorted(teacher[:, :length], self.teacher_temperature)
        # One of the two has more classes; its rest is compared with 0.
        size = min(p.shape[-1], q.shape[-1])
        distances = jnp.sum(absolute_difference(p[..., :size], q[..., :size]), axis=-1)
        distances += jnp.sum(p[..., size:], axis=-1) + jnp.sum(q[..., size:], axis=-1)
        num_pairs = jnp.maximum(jnp.sum(both, axis=1), 1)
        return jnp.sum(distances, axis=1, where=both) / num_pairs


def _sorted(logits, temperature):
    return jnp.sort(jnp.exp(log_softmax(logits, temperature)), descending=True)
