"""Optimal transport of tokens and of sequences, across vocabularies."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from kd.divergences.absolute import absolute_difference
from kd.divergences.batch_transport import check_resolved
from kd.divergences.cross_tokenizer import CrossTokenizerLoss
from kd.divergences.softened import cross_entropy, log_softmax
from kd.transport import solver
from kd.transport.cost import L1


@dataclasses.dataclass(frozen=True)
class MultiLevelOT(CrossTokenizerLoss):
    """Predictions compared class by class and position by position, once matched.

        s'    = s / (std_v s + 1e-4),                     t' likewise
        p_jk  = softmax(s'_j / student_temperature) of class a_k
        q_jk  = softmax(t'_j / teacher_temperature) of class c_k     k = 1..num_classes
        loss  = 1/l sum_j sum_k |p_jk - q_jk|
              + log_weight / l sum_j sum_k -q_jk log p_jk
              + sequence_weight sum_jj' P_jj' C_jj',   C_jj' = sum_k |p_jk - q_j'k|

    for each pair of sequences, with l the length of the shorter answer and P the plan
    of `num_iters` Sinkhorn iterations with equal masses on the student's positions
    and on the teacher's. The classes c_k are those with the most mass in all of the
    teacher's answer, a_k are matched to them, the same at all positions. A class ruled
    out (logit -inf) in all of an answer is as good as absent. The logarithmic term is
    infinite where a_k is ruled out at one position of several, and c_k is not.

    Args:
        student_temperature: softens the student's predictions.
        teacher_temperature: softens the teacher's.
        skip_student_eos: leave out the student's last prediction.
        skip_teacher_eos: leave out the teacher's.
        num_classes: classes of the teacher that are compared; no more than the
            smaller vocabulary has, of what is not ruled out.
        matching: "rank" takes for a_k the student's class with the k-th most mass in
            its answer, "greedy" for k = 1, 2, ... the class not yet taken with the
            least sum_j |p_ja - q_jk|, with 0 for positions that one of the two has
            not. Held constant in the gradient.
        log_weight: of the logarithmic term.
        sequence_weight: of the transport between positions.
        epsilon: entropic regularisation of that.
        num_iters: its Sinkhorn iterations.
        convention: "invariant" as above; "faithful" for the authors' code, see below.

    The formula is that of the authors' code with its slips put right. "faithful"
    brings them back:

    * mass is summed over all sequences of a batch, so that it depends on them;
    * the logarithmic term is -softmax(p) log softmax(q): the roles exchanged, a
      second softmax of probabilities, and averaged over padding too;
    * the transport is between softmax(p / 2) and softmax(q / 2), padding included
      (uniform), scales the teacher's positions first, and is multiplied by 0.001 L b
      for answers padded to length L: some 1e-5 of the loss;
    * "greedy" stops after the first L of the teacher's classes, chooses among the
      student's classes 0 to L - 1 only, and leaves 0 for the others.

    The code also multiplies all by 1.5.

    Source: cui2025multilevelot.
    """

    name = "multilevel_ot"
    num_classes: int = 50
    matching: Literal["rank", "greedy"] = "rank"
    log_weight: float = 0.1
    sequence_weight: float = 0.1
    epsilon: float = 0.1
    num_iters: int = 10
    convention: Literal["invariant", "faithful"] = "invariant"

    def __post_init__(self) -> None:
        super().__post_init__()
        solver.check_settings(self.epsilon, self.num_iters, "unrolled")
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {self.num_classes}")
        if self.log_weight < 0 or self.sequence_weight < 0:
            raise ValueError(
                "weights must be at least 0, got log_weight "
                f"{self.log_weight}, sequence_weight {self.sequence_weight}"
            )
        if self.matching not in ("rank", "greedy"):
            raise ValueError(f'matching is "rank" or "greedy", got {self.matching!r}')
        if self.convention not in ("invariant", "faithful"):
            raise ValueError(
                f'convention is "invariant" or "faithful", got {self.convention!r}'
            )

    def compare(self, student, teacher, kept, teacher_kept):
        check_resolved("MultiLevelOT", self.epsilon, student.dtype, 2.0)
        length = max(kept.shape[1], teacher_kept.shape[1])
        kept, teacher_kept = _pad(kept, length), _pad(teacher_kept, length)
        log_p = log_softmax(_scaled(student), self.student_temperature)
        log_q = log_softmax(_scaled(teacher), self.teacher_temperature)
        log_p, log_q = _pad(log_p, length), _pad(log_q, length)
        p = jnp.where(kept[..., None], jnp.exp(log_p), 0)
        q = jnp.where(teacher_kept[..., None], jnp.exp(log_q), 0)

        padded_to = jnp.sum(jnp.any(kept | teacher_kept, axis=0))
        num_classes = min(self.num_classes, p.shape[-1], q.shape[-1])
        theirs = self._of_most_mass(q, num_classes)
        possible = _possible(log_p, kept)
        if self.matching == "rank":
            ours = self._of_most_mass(p, num_classes)
        else:
            # The authors confuse the length of the answers with the number of classes.
            limit = padded_to if self.convention == "faithful" else p.shape[-1]
            ours = jax.vmap(_greedily, (0, 0, 0, None))(
                p, _select(q, theirs), possible, limit
            )
        if self.convention == "invariant":
            # Of classes that only one side has, neither is compared.
            teacher_possible = _possible(log_q, teacher_kept)
            exist = _chosen(possible, ours) & _chosen(teacher_possible, theirs)
            ours = jnp.where(exist, ours, p.shape[-1])
            theirs = jnp.where(exist, theirs, q.shape[-1])
        p, log_p = _select(p, ours), _select(log_p, ours)
        q, log_q = _select(q, theirs), _select(log_q, theirs)

        both = kept & teacher_kept
        absolute = _mean(jnp.sum(absolute_difference(p, q), axis=-1), both)
        if self.convention == "faithful":
            span = jnp.broadcast_to(jnp.arange(length) < padded_to, kept.shape)
            again_p, again_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
            logarithmic = _mean(jax.vmap(cross_entropy)(again_p, again_q), span)
            between = self._transport(
                jax.nn.softmax(q / 2), jax.nn.softmax(p / 2), span, span
            )
            num_sequences = jnp.sum(jnp.any(kept | teacher_kept, axis=1))
            between *= 0.001 * padded_to * num_sequences
        else:
            logarithmic = _mean(jax.vmap(cross_entropy)(log_q, log_p), both)
            between = self._transport(p, q, kept, teacher_kept)
        return absolute + self.log_weight * logarithmic + self.sequence_weight * between

    def _of_most_mass(self, p, num_classes):
        mass = jnp.sum(p, axis=1)
        if self.convention == "faithful":
            mass = jnp.broadcast_to(jnp.sum(mass, axis=0), mass.shape)
        return jax.lax.top_k(mass, num_classes)[1]

    def _transport(self, x, y, x_kept, y_kept):
        """Cost of moving the positions of x, in equal parts, onto those of y."""
        cost = jax.vmap(L1())(x, y)

        def plan(cost, x_kept, y_kept):
            # With nothing on one side there is nothing to transport.
            both = jnp.any(x_kept) & jnp.any(y_kept)
            x_kept, y_kept = x_kept & both, y_kept & both
            return solver.solve(
                cost,
                x_kept / jnp.maximum(jnp.sum(x_kept), 1),
                y_kept / jnp.maximum(jnp.sum(y_kept), 1),
                epsilon=self.epsilon,
                num_iters=self.num_iters,
                largest_cost=2.0,
            ).plan

        return jnp.sum(jax.vmap(plan)(cost, x_kept, y_kept) * cost, axis=(1, 2))


def _greedily(p, q, possible, limit):
    """Possible classes of p for those of q in turn; none beyond `limit` of either.

    "None", also where no class is left, is one that does not exist.
    """
    size = p.shape[1]
    costs = jax.lax.stop_gradient(L1()(q.T, p.T))

    def take(free, turn):
        k, costs = turn
        best = jnp.argmin(jnp.where(free, costs, jnp.inf))
        best = jnp.where(free[best] & (k < limit), best, size)
        return free.at[best].set(False, mode="drop"), best

    turns = jnp.arange(len(costs)), costs
    return jax.lax.scan(take, possible & (jnp.arange(size) < limit), turns)[1]


def _scaled(logits):
    """Logits of a standard deviation of about 1 in every prediction."""
    counted = logits > -jnp.inf
    values = jnp.where(counted, logits, 0)
    size = jnp.sum(counted, axis=-1, keepdims=True)
    mean = jnp.sum(values, axis=-1, keepdims=True) / jnp.maximum(size, 1)
    squares = jnp.sum(jnp.square(values - mean), axis=-1, keepdims=True, where=counted)
    variance = squares / jnp.maximum(size - 1, 1)
    # sqrt has no finite gradient at 0.
    deviation = jnp.sqrt(jnp.where(variance > 0, variance, 1)) * (variance > 0)
    return jnp.where(counted, values / (deviation + 1e-4), -jnp.inf)


def _possible(log_p, kept):
    """Which classes [b, v] an answer does not rule out at all of its positions."""
    return jnp.any((log_p > -jnp.inf) & kept[..., None], axis=1)


def _chosen(possible, classes):
    """Whether classes [b, k] are possible; False for one that does not exist."""
    return jnp.take_along_axis(possible, classes, axis=1, mode="fill", fill_value=False)


def _select(values, classes):
    """Values [b, n, v] of classes [b, k]; 0 for a class that does not exist."""
    return jnp.take_along_axis(
        values, classes[:, None, :], axis=-1, mode="fill", fill_value=0
    )


def _mean(values, where):
    return jnp.sum(values, axis=1, where=where) / jnp.maximum(jnp.sum(where, axis=1), 1)


def _pad(array, length):
    widths = [(0, 0), (0, length - array.shape[1])] + [(0, 0)] * (array.ndim - 2)
    return jnp.pad(array, widths)
