"""Distillation on texts that the networks write, in place of those of the data."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from kd.data.writing import WritingTask
from kd.models.beams import Beams
from kd.models.generate import Greedy, generate
from kd.models.sample import Sample
from kd.procedures.offline import distillation
from kd.procedures.procedure import Procedure, Setting
from kd.types import Batch, Model, Params, Training

if TYPE_CHECKING:
    from kd.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class SampledTargets(Procedure):
    """Distillation where targets are written by student or teacher, in every step.

        y_i ~ student   with probability from_student
            ~ teacher   with probability from_teacher,   else the text of the data

    and no gradient through what is drawn. All losses then see y_i as the target, drawn
    anew for every example and step: a divergence compares predictions in it, and
    `CrossEntropy` learns it as if the data said so. So

        SeqKD     CrossEntropy          from_teacher=1
        KL        KL                    from_teacher=1
        RKL       ReverseKL             from_student=1
        JS, TVD   JS, TotalVariation    from_student=1/2, from_teacher=1/2
        ENGINE    ReverseCrossEntropy   from_student=1

    A network writes with dropout off and the parameters of the step. Where a share is
    0 it does not write. Evaluation is as ever.

    Attributes:
        from_student: share of the targets that the student writes.
        from_teacher: share that the only teacher writes.
        how: tokens are chosen.

    Source: wen2023fdistill, section 3, but that their teacher's texts are drawn once,
    before training, and that losses here are the mean over all tokens of a batch, as
    in their code, rather than a sum over each text. The code draws with beams
    (`Beams(num_beams=5, sample=...)`) and leaves dropout on. With from_student between
    0 and 1 and the rest from the data it is agarwal2024gkd.
    """

    from_student: float = 1.0
    from_teacher: float = 0.0
    how: Greedy | Sample | Beams = Sample()

    def __post_init__(self) -> None:
        shares = self.from_student, self.from_teacher
        if min(shares) < 0 or sum(shares) > 1 or not sum(shares):
            raise ValueError(
                "from_student and from_teacher must be shares, not both 0, with the "
                f"sum 1 at most, got {shares[0]} and {shares[1]}"
            )

    @property
    def asks_beside_losses(self) -> bool:
        return self.from_teacher > 0

    def problems(self, experiment: "Experiment") -> Iterator[str]:
        if not isinstance(experiment.data, WritingTask):
            yield (
                "SampledTargets has texts written about sources, and "
                f"{experiment.data.name} has none; a WritingTask does"
            )
        if self.from_teacher and len(experiment.teachers) != 1:
            yield (
                f"SampledTargets has the only teacher write, and there are "
                f"{len(experiment.teachers)}"
            )
        if experiment.answers == "cached" and experiment.teachers:
            yield (
                "teachers are asked about texts that are not yet written; set "
                "answers=live"
            )
        shares = self.from_student + self.from_teacher
        if getattr(experiment.data, "unlabelled", 0) and shares < 1:
            yield (
                "where targets are hidden (data.unlabelled), from_student and "
                f"from_teacher must add up to 1, got {shares}"
            )
        if experiment.num_microbatches > 1:
            yield (
                "SampledTargets writes for a batch as a whole; num_microbatches must "
                "be 1"
            )

    def build(self, setting: Setting) -> Training:
        student = setting.learners["student"]
        teacher = setting.teachers[0] if setting.teachers else None

        def consult(teacher_params: Any, batch: Batch, step: Any):
            del step
            return setting.consult(teacher_params, batch), {}

        def rewritten(
            params: Params, teacher_params: Any, batch: Batch, key: PRNGKeyArray
        ) -> Batch:
            which = jax.random.uniform(jax.random.fold_in(key, 0), batch["mask"].shape)
            writers = [
                (self.from_student, student, params["student"]),
                (self.from_teacher, teacher, teacher_params and teacher_params[0]),
            ]
            before = 0.0
            for i, (share, model, own) in enumerate(writers, start=1):
                if share:
                    assert model is not None
                    own_key = jax.random.fold_in(key, i)
                    drawn = self._write(model, own, batch, own_key, setting.end)
                    chosen = (which >= before) & (which < before + share)
                    batch = _choose(chosen, drawn, batch)
                before += share
            if self.from_student + self.from_teacher == 1:
                # Nobody's label is hidden any more.
                batch = {k: v for k, v in batch.items() if k != "label_weight"}
            return batch

        return distillation(setting, consult, rewritten)

    def _write(
        self,
        model: Model,
        params: Params,
        batch: Batch,
        key: PRNGKeyArray,
        end: tuple[int, ...],
    ) -> dict[str, Array]:
        """Targets that a network writes about the sources of a batch."""
        written = generate(
            model,
            jax.lax.stop_gradient(params),
            {name: batch[name] for name in ("tokens", "token_mask")},
            key,
            self.how,
            num_tokens=batch["target_tokens"].shape[1],
            end=end,
        )
        there = written.token_mask
        return {
            "target_tokens": written.tokens,
            "target_mask": there,
            "labels": jnp.where(there, written.tokens, -1),
            "prediction_mask": there,
        }


def _choose(which: Array, ours: dict[str, Array], theirs: Batch) -> dict[str, Any]:
    """A batch whose targets are ours in some rows."""
    chosen = {
        name: jnp.where(which[:, None], values, theirs[name])
        for name, values in ours.items()
    }
    return {**theirs, **chosen}
