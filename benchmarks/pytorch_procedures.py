"""Two procedures in PyTorch: the other side of a comparison.

The residual network of `kd.models.resnet`, and one training step of mixup beside
distillation (`fashion_mnist_mixup`) and of deep mutual learning (`fashion_mnist_dml`),
written as one would for speed there.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from kd.experiment import Experiment
from kd.models.resnet import ResNet
from kd.objective import values_within

Batch = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """Choices that PyTorch leaves open and that decide how fast it is."""

    channels_last: bool = False
    joined: bool = False
    """Whether a network reads the batch and its view as one batch."""
    compiled: bool = False

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "channels first"
        return ", ".join(
            ["compiled"] * self.compiled + [layout] + ["joined"] * self.joined
        )

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


class Network(torch.nn.Module):
    """The network that `kd.models.resnet.ResNet` builds, with its parameters."""

    def __init__(self, resnet: ResNet, params: Mapping[str, Any]):
        super().__init__()
        self._resnet = resnet
        self._weights = torch.nn.ParameterDict()
        for path, leaf in flat(params).items():
            name = path.replace("/", "__")
            self._weights[name] = torch.nn.Parameter(torch.from_numpy(leaf.copy()))

    def of(self, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Arrays like its parameters, as `gradients` has them."""
        return flat(params)

    def gradients(self) -> dict[str, np.ndarray]:
        """Of every parameter, by its path there."""
        return {
            name.replace("__", "/"): weight.grad.numpy()
            for name, weight in self._weights.items()
            if weight.grad is not None
        }

    def _normed(
        self, x: torch.Tensor, conv: str, norm: str, *, stride: int = 1
    ) -> torch.Tensor:
        kernel = self._weights[f"{conv}__kernel"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        scale, bias = (self._weights[f"{norm}__{n}"] for n in ("scale", "bias"))
        return F.group_norm(x, self._resnet.num_groups, scale, bias, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        resnet = self._resnet
        x = F.relu(self._normed(x, "stem", "stem_norm", stride=resnet.stem_stride))
        for i in range(len(resnet.widths)):
            for j in range(resnet.num_blocks):
                x = self._block(x, f"stage_{i}_block_{j}__", 2 if i and not j else 1)
        x = x.mean(dim=(2, 3))
        return F.linear(
            x, self._weights["classifier__kernel"], self._weights["classifier__bias"]
        )

    def _block(self, x: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        y = F.relu(self._normed(x, name + "conv_0", name + "norm_0", stride=stride))
        y = self._normed(y, name + "conv_1", name + "norm_1")
        if f"{name}shortcut__kernel" in self._weights:
            shortcut = name + "shortcut", name + "shortcut_norm"
            x = self._normed(x, *shortcut, stride=stride)
        return F.relu(x + y)


def flat(params: Mapping[str, Any], before: str = "") -> dict[str, np.ndarray]:
    """The arrays of a network by their paths, in PyTorch's order of axes."""
    found = {}
    for name, leaf in params.items():
        path = f"{before}{name}"
        if isinstance(leaf, Mapping):
            found |= flat(leaf, f"{path}/")
        else:
            axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(np.ndim(leaf))
            array = np.asarray(leaf)
            found[path] = np.ascontiguousarray(array.transpose(axes) if axes else array)
    return found


class _Learner:
    """A network with what moves it."""

    def __init__(self, network: Network, experiment: Experiment, variant: Variant):
        recipe = experiment.optimizer
        self.network = network.to(memory_format=variant.memory_format).train()
        self.params = list(network.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": [p for p in self.params if p.ndim > 1],
                    "weight_decay": recipe.weight_decay,
                },
                {
                    "params": [p for p in self.params if p.ndim <= 1],
                    "weight_decay": 0.0,
                },
            ],
            lr=recipe.learning_rate,
            betas=(recipe.b1, recipe.b2),
            eps=recipe.epsilon,
            fused=True,
        )
        self._clip = recipe.clip

    def update(self, rate: float) -> torch.Tensor:
        """Moves down the gradient; returns its norm."""
        norm = torch.nn.utils.clip_grad_norm_(self.params, self._clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return norm


class Trainer:
    """Forward, loss, backward, clipping and AdamW of every network that learns."""

    def __init__(
        self,
        experiment: Experiment,
        networks: Mapping[str, tuple[ResNet, Mapping[str, Any]]],
        batch: Mapping[str, np.ndarray],
        variant: Variant,
    ):
        """As `benchmarks.procedures.Trainer`.

        Args:
            experiment: of which this is a step.
            networks: sizes and parameters: "student" and "peer", or "teacher".
            batch: that every step is taken on.
            variant: how.
        """
        self._variant = variant
        made = {name: Network(*network) for name, network in networks.items()}
        teacher = made.pop("teacher", None)
        self._teacher = teacher and teacher.to(memory_format=variant.memory_format)
        self.learners = {
            name: _Learner(network, experiment, variant)
            for name, network in made.items()
        }
        images = torch.from_numpy(np.asarray(batch["inputs"])).permute(0, 3, 1, 2)
        self._batch: Batch = {
            "inputs": images.contiguous(memory_format=variant.memory_format),
            "labels": torch.from_numpy(np.asarray(batch["labels"])).long(),
        }
        if "teacher_logits" in batch:
            logits = np.asarray(batch["teacher_logits"])
            self._batch["teacher_logits"] = torch.from_numpy(logits)
        schedule = experiment.optimizer.schedule(experiment.num_steps)
        self._rates = values_within(schedule, experiment.num_steps).tolist()
        self._num_steps = 0
        loss: Any = self._mutual if "peer" in self.learners else self._mixed
        self._loss = torch.compile(loss, dynamic=False) if variant.compiled else loss
        terms = experiment.objective.terms
        self._weights = [float(term.weight) for term in terms]  # pyrefly: ignore
        self._temperature = terms[1].loss.temperature  # pyrefly: ignore

    def step(self, drawn: tuple[float, np.ndarray] | None = None) -> dict[str, Any]:
        """One step; its loss and the norm of its gradient.

        Args:
            drawn: lambda and the other example of each, as mixup has drawn them.
        """
        loss = self.backward(drawn)
        rate = self._rates[min(self._num_steps, len(self._rates) - 1)]
        norms = [learner.update(rate) for learner in self.learners.values()]
        self._num_steps += 1
        return {"loss": loss.detach(), "grad_norm": torch.stack(norms).norm()}

    def backward(self, drawn: tuple[float, np.ndarray] | None = None) -> torch.Tensor:
        """The loss, with its gradient left where the parameters are."""
        for learner in self.learners.values():
            learner.optimizer.zero_grad()
        if "peer" in self.learners:
            loss = self._loss(self._batch)
        else:
            share, other = drawn or self._draw()
            # A tensor: of every number one would be compiled anew.
            share, other = (
                torch.tensor(share, dtype=torch.float32),
                torch.as_tensor(other),
            )
            loss = self._loss(self._batch, share, other)
        loss.backward()
        return loss

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.step()

    def _draw(self) -> tuple[float, Any]:
        share = float(np.random.beta(1.0, 1.0))
        return share, torch.randperm(len(self._batch["labels"]))

    def _mutual(self, batch: Batch) -> torch.Tensor:
        ce, kl = self._weights
        said = [one.network(batch["inputs"]) for one in self.learners.values()]
        losses = [
            ce * F.cross_entropy(ours, batch["labels"])
            + kl * divergence(ours, theirs.detach(), self._temperature)
            for ours, theirs in (said, said[::-1])
        ]
        return losses[0] + losses[1]

    def _mixed(
        self, batch: Batch, share: torch.Tensor, other: torch.Tensor
    ) -> torch.Tensor:
        assert self._teacher is not None
        ce, kl = self._weights
        clean, student = batch["inputs"], self.learners["student"].network
        mixed = torch.lerp(clean[other], clean, share)
        with torch.no_grad():
            of_mixed = self._teacher(mixed)
        if self._variant.joined:
            ours, ours_of_mixed = student(torch.cat([clean, mixed])).chunk(2)
        else:
            ours, ours_of_mixed = student(clean), student(mixed)
        temperature = self._temperature
        return (
            ce * F.cross_entropy(ours, batch["labels"])
            + kl * divergence(ours, batch["teacher_logits"], temperature)
            + kl * divergence(ours_of_mixed, of_mixed, temperature)
        )


def divergence(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The mean of T^2 KL(teacher || student) at a temperature."""
    return temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, -1),
        F.log_softmax(teacher / temperature, -1),
        reduction="batchmean",
        log_target=True,
    )
