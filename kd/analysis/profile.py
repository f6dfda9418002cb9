"""Layer by layer: how far training lies from dev, times how steep what follows is.

    score_l = max(1, Lipschitz constant after l) W_1((T_l, Y) of training, of dev)

The hierarchical Wasserstein bound is the least of such scores, times the Lipschitz
constant of the loss, over layers l; the layer where it is reached is called the
generalization funnel. There the distance is between distributions, given the weights
and averaged over them. Here it is between two samples and for one network, so a score
is a diagnostic of where training and dev come apart, and no bound.

Source: he2024information.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped

from kd.analysis.lipschitz import mlp_bounds, resnet_bounds, slopes
from kd.analysis.wasserstein import wasserstein
from kd.data.pipeline import fill_rows
from kd.data.task import Split
from kd.models.mlp import MLP
from kd.models.resnet import ResNet
from kd.types import Batch, Outputs, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which examples a profile is computed from.

    Attributes:
        num_examples: in each of the samples that distances are between; less where
            there are not as many.
        num_draws: of samples, that distances are averaged over.
        num_points: training examples at which slopes are taken.
        seed: of the draws.
    """

    num_examples: int = 512
    num_draws: int = 5
    num_points: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            least = 0 if field.name == "seed" else 1
            if getattr(self, field.name) < least:
                raise ValueError(
                    f"{field.name} must be at least {least}, got "
                    f"{getattr(self, field.name)}"
                )


class Examples(NamedTuple):
    """A split, and what of it takes part."""

    split: Split
    index: Int[np.ndarray, "m"]
    """The examples to draw from."""
    labels: Shaped[np.ndarray, "num_examples"]
    """Of every example of the split, as learnt from."""
    points: Float[np.ndarray, "num_examples k"]
    """The labels as points, see `Target.points`."""


class Layer(NamedTuple):
    """What is found of a layer."""

    name: str
    width: int
    distance: float
    """W_1 between training and dev, mean over the draws."""
    distance_error: float
    """Standard error of that mean; NaN of a single draw."""
    noise: float
    """W_1 between two samples of training, as large and disjoint: of that much a
    distance tells nothing."""
    bound: float
    """On the Lipschitz constant of what follows."""
    slope: float
    """The largest at the training examples looked at: at most that constant."""

    @property
    def score(self) -> float:
        """By the slope, which is what happens at examples."""
        return max(1.0, self.slope) * self.distance

    @property
    def score_of_bound(self) -> float:
        """By the bound."""
        return max(1.0, self.bound) * self.distance


class Profile(NamedTuple):
    """All layers, and what they were computed from."""

    layers: tuple[Layer, ...]
    num_examples: int
    num_draws: int
    num_points: int
    seed: int

    @property
    def funnel(self) -> Layer:
        """The layer of the least score."""
        return min(self.layers, key=lambda layer: layer.score)

    @property
    def funnel_of_bound(self) -> Layer:
        """The layer of the least score by the bounds."""
        return min(self.layers, key=lambda layer: layer.score_of_bound)


def profile(
    network: MLP | ResNet,
    params: Params,
    num_outputs: int,
    train: Examples,
    dev: Examples,
    sampling: Sampling,
) -> Profile:
    """Draws samples of both splits and compares them in every layer.

    Args:
        network: its sizes.
        params: its parameters.
        num_outputs: width of the logits.
        train: what it was trained on.
        dev: what it was not.
        sampling: how many examples, drawn how.

    Raises:
        ValueError: there are less than two training examples, or none of dev.
    """
    num = min(sampling.num_examples, len(train.index) // 2, len(dev.index))
    if num < 1:
        raise ValueError(
            f"{len(train.index)} training examples and {len(dev.index)} of dev cannot "
            "be compared; it takes 2 and 1"
        )
    layers_of = _layers_of(network, params, num_outputs)
    distances, noises, widths = [], [], []
    for draw in range(sampling.num_draws):
        random = np.random.Generator(np.random.Philox(key=[sampling.seed, draw]))
        ours, others = np.split(random.permutation(train.index)[: 2 * num], 2)
        theirs = random.permutation(dev.index)[:num]
        samples = [
            (layers_of(examples.split, index), examples.points[index])
            for examples, index in ((train, ours), (train, others), (dev, theirs))
        ]
        widths = [values.shape[1] for values in samples[0][0]]
        joint = [
            [np.concatenate([values, points], axis=1) for values in layers]
            for layers, points in samples
        ]
        distances.append([wasserstein(a, c) for a, _, c in zip(*joint, strict=True)])
        noises.append([wasserstein(a, b) for a, b, _ in zip(*joint, strict=True)])
    random = np.random.Generator(np.random.Philox(key=[sampling.seed, 2**63]))
    points = random.permutation(train.index)[: sampling.num_points]
    steepest = _slopes(network, params, num_outputs, train.split, points)
    found = np.array(distances)
    error = np.full(found.shape[1], np.nan)
    if len(found) > 1:
        error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    layers = map(
        Layer,
        ["inputs", *_hidden_names(network), "logits"],
        widths,
        found.mean(axis=0).tolist(),
        error.tolist(),
        np.mean(noises, axis=0).tolist(),
        _bounds(network, params, train.split),
        steepest,
    )
    return Profile(tuple(layers), num, sampling.num_draws, len(points), sampling.seed)


def logits_of(
    network: MLP | ResNet, params: Params, num_outputs: int
) -> Callable[[Split, np.ndarray], np.ndarray]:
    """A function from a split and some of its examples to their logits [n, v]."""
    found = _in_parts(network, params, num_outputs, lambda batch, out: [out.logits])
    return lambda split, index: found(split, index)[0]


def _layers_of(
    network: MLP | ResNet, params: Params, num_outputs: int
) -> Callable[[Split, np.ndarray], list[np.ndarray]]:
    """Likewise to the inputs, every hidden layer, and the logits, [n, d] each."""

    def layers(batch, out):
        return [batch["inputs"], *out.hidden, out.logits]

    return _in_parts(network, params, num_outputs, layers)


def _in_parts(
    network: MLP | ResNet,
    params: Params,
    num_outputs: int,
    read: Callable[[Batch, Outputs], list[Any]],
) -> Callable[[Split, np.ndarray], list[np.ndarray]]:
    model = network.build(num_outputs)

    @jax.jit
    def of_batch(params, batch):
        return read(batch, model.apply(params, batch, None))

    def of_examples(split: Split, index: np.ndarray) -> list[np.ndarray]:
        parts = []
        for start in range(0, len(index), _ROWS):
            rows = index[start : start + _ROWS]
            found = of_batch(params, split.inputs(fill_rows(rows, _ROWS)))
            parts.append(
                [np.asarray(x)[: len(rows)].reshape(len(rows), -1) for x in found]
            )
        return [np.concatenate(layer) for layer in zip(*parts, strict=True)]

    return of_examples


_ROWS = 64


def _hidden_names(network: MLP | ResNet) -> list[str]:
    if isinstance(network, MLP):
        return [f"hidden {i}" for i in range(len(network.widths))]
    return ["stem", *(f"stage {i}" for i in range(len(network.widths))), "pooled"]


def _bounds(network: MLP | ResNet, params: Params, split: Split) -> list[float]:
    if isinstance(network, MLP):
        return mlp_bounds(network, params)
    height, width = split.inputs(np.array([0]))["inputs"].shape[1:3]
    return resnet_bounds(network, params, (height, width))


def _slopes(
    network: MLP | ResNet,
    params: Params,
    num_outputs: int,
    split: Split,
    index: np.ndarray,
) -> list[float]:
    model = network.build(num_outputs)
    inputs = split.inputs(index)["inputs"]

    def whole(x: Any) -> Any:
        return model.apply(params, {"inputs": x}, None).logits

    hidden = jax.jit(lambda x: model.apply(params, {"inputs": x}, None).hidden)(inputs)
    found = [slopes(whole, inputs)]
    for layer, values in enumerate(hidden):
        tail = network.tail(layer, num_outputs)
        found.append(slopes(lambda x, tail=tail: tail(params, x), values))
    return [*(float(values.max()) for values in found), 1.0]
