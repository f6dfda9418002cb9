"""A curriculum of experts: one teaches each example, by how difficult it is."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from kd.data.sample import Sample
from kd.errors import UserError
from kd.objective import masked_mean
from kd.procedures.offline import distillation
from kd.procedures.procedure import Procedure, Setting, answers_name
from kd.types import Outputs, Training, Weight

if TYPE_CHECKING:
    from kd.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curriculum(Procedure):
    """Trains the student by several experts, exactly one for each example and step.

    The experts are the experiment's teachers, K of them, the weakest first.

        stratum_i   = floor(K r_i / n),  r_i = 0, ..., n - 1 the rank of example i
                      among the n by its difficulty, the easiest first
        expert_i(t) = min(stratum_i, floor(K g(t))),  g(t) in [0, 1] the pacing

    So the weakest teaches everything at first; each next expert takes over the more
    difficult examples as g rises; and at g = 1 every expert has its K-th of the
    examples. No example ever goes back to a weaker expert.

    Difficulty is by the cached logits of one expert, the scorer: "loss", the
    cross-entropy with the label that the student sees; or "margin", how little the most
    probable class is ahead of the next, which needs no label. Examples of one
    difficulty keep their order. All experts' answers are read from the cache, so none
    runs in a step. The metrics have `expert/<k>`, the share of a batch that expert k
    teaches.

    Attributes:
        pacing: the share of the run over which g rises linearly from 0 to 1, above 0
            and at most 1; or g as a schedule of the step, which must not fall.
        difficulty: of an example.
        scorer: the expert whose logits say so, from 0, the weakest; -1 is the
            strongest.

    Source: amara2022ceskd. No code was published with it, and its abstract is all that
    was at hand: one expert for each image, by a curriculum of its difficulty, from
    experts of low to high capacity. Score, strata and pacing are this project's
    reading; the chain of experts is that of mirzadeh2020improved.
    """

    pacing: Weight = 0.5
    difficulty: Literal["loss", "margin"] = "loss"
    scorer: int = 0

    def __post_init__(self) -> None:
        if not callable(self.pacing) and not 0 < self.pacing <= 1:
            raise ValueError(
                "pacing is the share of the run until every expert has its examples, "
                f"above 0 and at most 1, got {self.pacing}"
            )

    def problems(self, experiment: "Experiment") -> Iterator[str]:
        num_experts, data = len(experiment.teachers), experiment.data
        readers = [loss.name for loss in experiment.losses if loss.reads_hidden]
        if not experiment.asks_teachers:
            yield (
                "a curriculum chooses who teaches, and no term of the objective learns "
                "from a teacher"
            )
        if num_experts and not -num_experts <= self.scorer < num_experts:
            yield (
                f"procedure.scorer={self.scorer} is none of the {num_experts} experts; "
                f"they are 0 to {num_experts - 1}"
            )
        if experiment.answers == "live":
            yield (
                "a curriculum reads the experts' cached answers; answers must be cached"
            )
        if readers:
            yield (
                f"{', '.join(readers)} reads hidden states, and a curriculum has the "
                "experts' cached logits only"
            )
        if experiment.teacher_weights:
            yield (
                "teacher_weights makes one answer of several, and in a curriculum one "
                "expert teaches; it must be empty"
            )
        if experiment.view is not None:
            yield (
                "how difficult an example is, is known of it as it is: a curriculum "
                "takes no view"
            )
        if not data.target.has_classes:
            yield (
                f"{data.name} asks for a number, and difficulty is of the prediction "
                "of a class"
            )
        if self.difficulty == "loss" and data.unlabelled:
            yield (
                "difficulty=loss reads the label of every example, and "
                f"data.unlabelled={data.unlabelled} hides some; difficulty=margin "
                "does not"
            )

    def annotate(
        self, sample: Sample, answers: Sequence[Float[np.ndarray, "num_train v"]]
    ) -> Mapping[str, Shaped[np.ndarray, "num_train"]]:
        """`stratum` of every example that experts answer on, int32 in [0, K), else 0.

        Raises:
            UserError: there are fewer examples than experts.
        """
        ranked = sample.asked
        if len(ranked) < len(answers):
            raise UserError(
                f"{len(answers)} experts and {len(ranked)} examples to learn from: "
                "some expert has none; take fewer experts or more examples"
            )
        logits = np.asarray(answers[self.scorer][ranked], np.float64)
        scores = difficulty(logits, sample.labels[ranked], self.difficulty)
        order = ranked[np.argsort(scores, kind="stable")]
        stratum = np.zeros(len(sample.labels), np.int32)
        stratum[order] = np.arange(len(order)) * len(answers) // len(order)
        return {"stratum": stratum}

    def build(self, setting: Setting) -> Training:
        """As `Offline`, by the answers of the expert of each example.

        Raises:
            UserError: the pacing is out of its range, or leaves an expert without
                examples for the whole run.
        """
        num_experts = len(setting.teachers)
        self._check(num_experts, setting.num_steps)

        def consult(teacher_params, batch, step):
            del teacher_params
            reached = jnp.floor(num_experts * self._reached(step, setting.num_steps))
            expert = jnp.minimum(batch["stratum"], reached.astype(jnp.int32))
            answers = jnp.stack([batch[answers_name(k)] for k in range(num_experts)])
            logits = jnp.take_along_axis(answers, expert[None, :, None], axis=0)[0]
            shares = {
                f"expert/{k + 1}": masked_mean(
                    (expert == k).astype(jnp.float32), batch["mask"]
                )
                for k in range(num_experts)
            }
            return Outputs(logits=logits), shares

        return distillation(setting, consult)

    def _reached(self, step, num_steps: int):
        """g at a step, or at many."""
        if callable(self.pacing):
            return jnp.asarray(self.pacing(step), jnp.float32)
        return jnp.minimum(step / (self.pacing * num_steps), 1.0)

    def _check(self, num_experts: int, num_steps: int) -> None:
        with jax.ensure_compile_time_eval():
            steps = jnp.arange(num_steps)
            reached = np.asarray(
                jax.vmap(lambda step: self._reached(step, num_steps))(steps)
            )
        outside = np.flatnonzero(~((reached >= 0) & (reached <= 1)))
        if len(outside):
            step = outside[0]
            raise UserError(
                f"procedure.pacing is {reached[step]:g} at step {step}; it must lie in "
                "[0, 1] in every step"
            )
        falling = np.flatnonzero(np.diff(reached) < 0)
        if len(falling):
            raise UserError(
                f"procedure.pacing falls after step {falling[0]}; examples go on to "
                "stronger experts, never back"
            )
        last = int(num_experts * reached[-1])
        if last < num_experts - 1:
            raise UserError(
                f"procedure.pacing reaches {reached[-1]:g} in the {num_steps} steps of "
                f"this run, so that expert {last + 2} of {num_experts} never teaches; "
                f"it must reach {(num_experts - 1) / num_experts:g}"
            )


def difficulty(
    logits: Float[np.ndarray, "n v"],
    labels: Int[np.ndarray, "n"],
    kind: Literal["loss", "margin"],
) -> Float[np.ndarray, "n"]:
    """How difficult a network finds examples; the larger the more.

        loss     -log softmax(z_i)[y_i], nats
        margin   less the two largest probabilities' difference, in [-1, 0]

    Args:
        logits: of the network.
        labels: classes in [0, v); read for "loss" only.
        kind: which of the two.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    if kind == "loss":
        return -log_p[np.arange(len(labels)), labels]
    second, first = np.sort(np.exp(log_p), axis=1)[:, -2:].T
    return second - first
