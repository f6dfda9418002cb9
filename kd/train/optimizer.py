"""AdamW with a linear schedule and clipping, as BERT is fine-tuned."""

import dataclasses
import math
from typing import Any

import jax
import optax

from kd.errors import UserError
from kd.train.pruning import Pruning
from kd.types import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW (loshchilov2019decoupled).

    The learning rate rises linearly over the first `warmup` share of all steps and
    then falls linearly to 0 at the last.

    Attributes:
        learning_rate: at its peak, positive.
        warmup: share of the steps, in [0, 1).
        weight_decay: decoupled; of matrices only, not of biases and norms. 0 for none.
        b1: decay of the mean gradient, in [0, 1).
        b2: decay of the mean squared gradient, in [0, 1).
        epsilon: added to the root of the mean squared gradient, positive.
        clip: largest global norm of the gradient; 0 for no limit.
        frozen: subtrees of the networks' parameters that stay as they are, by their
            names or paths: "embeddings", "layer_0/query". Without moments, and not
            part of the norm that is clipped.
        pruning: of the networks' weights as training goes on; none by default.
    """

    learning_rate: float = 4e-5
    warmup: float = 0.0
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    clip: float = 1.0
    frozen: tuple[str, ...] = ()
    pruning: Pruning = Pruning()

    def __post_init__(self) -> None:
        wrong = []
        for holds, name, range_ in (
            (self.learning_rate > 0, "learning_rate", "must be positive"),
            (0 <= self.warmup < 1, "warmup", "is a share of the steps, in [0, 1)"),
            (self.weight_decay >= 0, "weight_decay", "must not be negative"),
            (0 <= self.b1 < 1, "b1", "must be in [0, 1)"),
            (0 <= self.b2 < 1, "b2", "must be in [0, 1)"),
            (self.epsilon > 0, "epsilon", "must be positive"),
            (self.clip >= 0, "clip", "must not be negative"),
        ):
            value = getattr(self, name)
            if not math.isfinite(value):
                wrong.append(f"{name} must be finite, got {value}")
            elif not holds:
                wrong.append(f"{name} {range_}, got {value}")
        if not all(name.strip("/") == name != "" for name in self.frozen):
            wrong.append(
                f'frozen must be names such as "embeddings", got {self.frozen}'
            )
        if wrong:
            raise ValueError("; ".join(wrong))

    def schedule(self, num_steps: int) -> optax.Schedule:
        """The learning rate of every step."""
        rising = round(self.warmup * num_steps)
        fall = optax.linear_schedule(self.learning_rate, 0.0, num_steps - rising)
        if not rising:
            return fall
        rise = optax.linear_schedule(0.0, self.learning_rate, rising)
        return optax.join_schedules([rise, fall], [rising])

    def build(self, num_steps: int) -> optax.GradientTransformation:
        """The transformation for a run of `num_steps` steps."""
        adamw = optax.adamw(
            self.schedule(num_steps),
            b1=self.b1,
            b2=self.b2,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            mask=_matrices,
        )
        whole = (
            optax.chain(optax.clip_by_global_norm(self.clip), adamw)
            if self.clip
            else adamw
        )
        if self.frozen:
            whole = optax.partition(
                {"trained": whole, "frozen": optax.set_to_zero()}, self._labels
            )
        if not self.pruning.share:
            return whole
        return optax.chain(whole, self.pruning.build(num_steps, self._prunes))

    def _prunes(self, path: Any) -> bool:
        """Whether the parameter at the path is a network's, and trained."""
        joined = _joined(path)
        frozen = any(_within(joined, name) for name in self.frozen)
        return not joined.startswith("objective/") and not frozen

    def _labels(self, params: Params) -> Any:
        """What becomes of every parameter: "trained" or "frozen".

        Raises:
            UserError: a name is not in any network, or nothing else is.
        """
        # The objective's own parameters are no network.
        paths = [
            _joined(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
        ]
        networks = {path for path in paths if not path.startswith("objective/")}
        for name in self.frozen:
            if not any(_within(path, name) for path in networks):
                known = dict.fromkeys(path.split("/")[1] for path in sorted(networks))
                raise UserError(
                    f"optimizer.frozen: {name} is in no network; there are "
                    f"{', '.join(known)}"
                )
        frozen = {
            path
            for path in networks
            if any(_within(path, name) for name in self.frozen)
        }
        if frozen == networks:
            raise UserError(
                f"optimizer.frozen: {', '.join(self.frozen)} leaves nothing to train"
            )
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if _joined(path) in frozen else "trained", params
        )


def _joined(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _within(path: str, name: str) -> bool:
    """Whether some part of the path, below the network, is the name."""
    _, _, below = path.partition("/")
    return f"/{name}/" in f"/{below}/"


def _matrices(params):
    def is_matrix(path, leaf):
        # A bias of the head is a matrix of one row, as files have it.
        return leaf.ndim > 1 and not jax.tree_util.keystr(path).endswith(
            "['head_bias']"
        )

    return jax.tree.map_with_path(is_matrix, params)
