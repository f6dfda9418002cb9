"""Pure functions of a trained network that give another one.

(sizes, parameters) -> (sizes, parameters)
"""

import abc
import dataclasses
import re
from typing import Any

import jax
import numpy as np

from kd.models.bert import Bert
from kd.models.gpt2 import GPT2
from kd.models.llama import Llama
from kd.train.pruning import is_kernel
from kd.types import Architecture, Params


class Change(abc.ABC):
    """What is done to a trained network; a frozen dataclass."""

    @abc.abstractmethod
    def __call__(
        self, network: Architecture, params: Params
    ) -> tuple[Architecture, Params]:
        """The changed network.

        Args:
            network: its sizes.
            params: its parameters; None where only the sizes are asked for.

        Raises:
            ValueError: the network cannot be changed so.
        """


@dataclasses.dataclass(frozen=True)
class Layers(Change):
    """Some layers of a text network in their order, with all else that it has.

    Of a BERT, a GPT-2 or a Llama: embeddings, norms, pooler and head stay.

    Attributes:
        chosen: their numbers, from 0; or "every second" (0, 2, 4, ...), or "first k",
            such as "first 3".

    Source: the first layers sun2019patient; every second one sanh2019distilbert.
    """

    chosen: tuple[int, ...] | str = "every second"

    def __post_init__(self) -> None:
        if isinstance(self.chosen, str):
            known = self.chosen == "every second" or _first(self.chosen)
            if not known:
                raise ValueError(
                    'chosen is "every second", "first k" or numbers of layers, got '
                    f"{self.chosen!r}"
                )
        elif not self.chosen or list(self.chosen) != sorted(set(self.chosen)):
            raise ValueError(f"chosen must be increasing, got {self.chosen}")

    def numbers(self, num_layers: int) -> tuple[int, ...]:
        """The chosen ones of so many layers."""
        if self.chosen == "every second":
            return tuple(range(0, num_layers, 2))
        first = _first(self.chosen) if isinstance(self.chosen, str) else 0
        return tuple(range(first)) if first else tuple(map(int, self.chosen))

    def __call__(
        self, network: Architecture, params: Params
    ) -> tuple[Architecture, Params]:
        if not isinstance(network, Bert | GPT2 | Llama):
            raise ValueError(
                "layers are taken of a Bert, a GPT2 or a Llama, and this is a "
                f"{type(network).__name__}"
            )
        numbers = self.numbers(network.num_layers)
        if min(numbers) < 0 or max(numbers) >= network.num_layers:
            raise ValueError(
                f"layers {', '.join(map(str, numbers))} of a network that has 0 to "
                f"{network.num_layers - 1}"
            )
        smaller = dataclasses.replace(network, num_layers=len(numbers))
        if params is None:
            return smaller, None
        kept: dict[str, Any] = {
            name: value
            for name, value in params.items()
            if not re.fullmatch(r"layer_\d+", name)
        }
        kept |= {f"layer_{i}": params[f"layer_{n}"] for i, n in enumerate(numbers)}
        return smaller, kept


@dataclasses.dataclass(frozen=True)
class Pruned(Change):
    """A network with the smallest weights of every layer set to 0, not trained again.

    Of each kernel, of dense layers and convolutions, the round(share n) of its n
    weights that are smallest in absolute value; the first ones among equals.
    Embeddings, biases and the parameters of norms stay.

    Attributes:
        share: of every layer's weights, in [0, 1).

    Source: kim2024r2kd, code: 0.1 of a teacher, by torch's `l1_unstructured`.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(
                f"share is of every layer's weights, in [0, 1), got {self.share}"
            )

    def __call__(
        self, network: Architecture, params: Params
    ) -> tuple[Architecture, Params]:
        if params is None:
            return network, None

        def prune(path, leaf):
            if not is_kernel(path):
                return leaf
            pruned = np.array(leaf)
            smallest = np.argsort(np.abs(pruned), axis=None, kind="stable")
            pruned.flat[smallest[: round(self.share * pruned.size)]] = 0
            return pruned

        return network, jax.tree_util.tree_map_with_path(prune, params)


def _first(text: str) -> int:
    found = re.fullmatch(r"first ([1-9]\d*)", text)
    return int(found[1]) if found else 0
