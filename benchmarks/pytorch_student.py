"""The same student, loss and optimizer in PyTorch: the other side of a comparison.

The network is `BertForSequenceClassification` of transformers, loaded from what
`kd.models.bert_checkpoint` wrote. Everything else is written as one would for speed
there.
"""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from benchmarks.student import HostBatch
from kd.divergences import KL, SinKD
from kd.experiment import Experiment
from kd.objective import CrossEntropy, Mix

Batch = dict[str, torch.Tensor]
Attention = Literal["sdpa", "eager"]
Optimizer = Literal["fused", "foreach"]
Sinkhorn = Literal["matrix", "scaling"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """Choices that PyTorch leaves open and that decide how fast it is."""

    attention: Attention = "sdpa"
    optimizer: Optimizer = "fused"
    sinkhorn: Sinkhorn = "matrix"
    compiled: bool = False

    def __str__(self) -> str:
        parts = [f"attention {self.attention}", f"AdamW {self.optimizer}",
                 f"Sinkhorn {self.sinkhorn}"]  # fmt: skip
        return ", ".join(["compiled"] * self.compiled + parts)


class Losses(NamedTuple):
    """The numbers in 0.1 * CrossEntropy() + 0.9 * KL(...) + 0.8 * SinKD(...)."""

    ce: float
    kl: float
    kl_temperature: float
    sinkd: float
    sinkd_temperature: float
    epsilon: float
    num_iters: int

    @classmethod
    def of(cls, objective: Mix) -> "Losses":
        """Those of `sst2_sinkd`; another objective is a mistake."""
        weights = [float(term.weight) for term in objective.terms]  # pyrefly: ignore
        ce, kl, sinkd = (term.loss for term in objective.terms)
        assert isinstance(ce, CrossEntropy)
        assert isinstance(kl, KL) and kl.temperature_squared
        assert isinstance(sinkd, SinKD) and sinkd.convention == "invariant"
        return cls(
            ce=weights[0],
            kl=weights[1],
            kl_temperature=kl.temperature,
            sinkd=weights[2],
            sinkd_temperature=sinkd.temperature,
            epsilon=sinkd.epsilon,
            num_iters=sinkd.num_iters,
        )


class Trainer:
    """Forward, loss, backward, clipping and AdamW, as `benchmarks.student.Trainer`."""

    def __init__(
        self,
        experiment: Experiment,
        checkpoint: pathlib.Path,
        variant: Variant,
    ):
        self._network = transformers.BertForSequenceClassification.from_pretrained(
            checkpoint, attn_implementation=variant.attention
        ).train()
        self._params = list(self._network.parameters())
        recipe = experiment.optimizer
        matrices = [p for p in self._params if p.ndim > 1]
        others = [p for p in self._params if p.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
            betas=(recipe.b1, recipe.b2),
            eps=recipe.epsilon,
            **{variant.optimizer: True},  # pyrefly: ignore
        )
        self._clip = recipe.clip
        schedule = recipe.schedule(experiment.num_steps)
        self._rates = np.asarray(
            [schedule(i) for i in range(experiment.num_steps)]
        ).tolist()
        self._num_steps = 0
        losses = Losses.of(experiment.objective)

        def loss(batch: Batch) -> torch.Tensor:
            return objective(
                self._forward(batch),
                batch["teacher_logits"],
                batch["labels"],
                losses,
                variant.sinkhorn,
            )

        self._loss = torch.compile(loss, dynamic=False) if variant.compiled else loss

    def prepare(self, batches: Iterable[HostBatch]) -> list[Batch]:
        """The batches as tensors, integers as PyTorch wants them."""
        return [
            {
                "tokens": torch.from_numpy(batch["tokens"]).long(),
                "token_mask": torch.from_numpy(batch["token_mask"]).long(),
                "labels": torch.from_numpy(batch["labels"]).long(),
                "teacher_logits": torch.from_numpy(batch["teacher_logits"]),
            }
            for batch in batches
        ]

    def _forward(self, batch: Batch) -> torch.Tensor:
        tokens, token_mask = batch["tokens"], batch["token_mask"]
        return self._network(input_ids=tokens, attention_mask=token_mask).logits

    def logits(self, batch: Batch) -> torch.Tensor:
        """What the network says, with dropout off."""
        self._network.eval()
        with torch.no_grad():
            found = self._forward(batch)
        self._network.train()
        return found

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        self._optimizer.zero_grad()
        loss = self._loss(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._params, self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rates[min(self._num_steps, len(self._rates) - 1)]
        self._optimizer.step()
        self._num_steps += 1
        return {"loss": loss.detach(), "grad_norm": norm}

    def run(self, batches: Iterable[Any]) -> None:
        for batch in batches:
            self.step(batch)


def objective(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    losses: Losses,
    sinkhorn: Sinkhorn,
) -> torch.Tensor:
    """The sum of the three terms, of logits [b, v] and labels [b]."""
    ce = F.cross_entropy(student, labels)
    kl = losses.kl_temperature**2 * F.kl_div(
        F.log_softmax(student / losses.kl_temperature, -1),
        F.log_softmax(teacher / losses.kl_temperature, -1),
        reduction="batchmean",
        log_target=True,
    )
    p = torch.softmax(student / losses.sinkd_temperature, -1)
    q = torch.softmax(teacher / losses.sinkd_temperature, -1)
    cost = (p[:, None] - q[None]).abs().sum(-1)
    solve = _plan_by_matrix if sinkhorn == "matrix" else _plan_by_scaling
    plan = solve(torch.exp(-cost / losses.epsilon), losses.num_iters)
    return losses.ce * ce + losses.kl * kl + losses.sinkd * (plan * cost).sum()


def _plan_by_matrix(kernel: torch.Tensor, num_iters: int) -> torch.Tensor:
    """Divides the plan itself by its row sums, then its column sums (cui2024sinkhorn).

    As the authors' code does, but to total mass 1.
    """
    plan = kernel
    for _ in range(num_iters):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan / plan.sum(0, keepdim=True)
    return plan / len(kernel)


def _plan_by_scaling(kernel: torch.Tensor, num_iters: int) -> torch.Tensor:
    """Keeps two scaling vectors and multiplies; the plan is the same."""
    b = len(kernel)
    u = v = kernel.new_ones(b)
    for _ in range(num_iters):
        u = 1 / (b * (kernel @ v))
        v = 1 / (b * (u @ kernel))
    return u[:, None] * kernel * v
