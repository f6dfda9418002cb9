"""The shared vocabulary: what a batch, a network and a training state are.

Axes: b examples, n tokens, v classes or vocabulary, d width, h heads.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Params = Any
"""A pytree of arrays."""

Batch = Mapping[str, jax.Array]
"""Arrays of one batch, each [b, ...]; "mask" [b] is False on padding rows."""


def answers_name(i: int) -> str:
    """What a batch calls the cached logits of teacher i."""
    return f"teacher_logits_{i}" if i else "teacher_logits"


Metrics = dict[str, jax.Array]
"""Scalars by name."""

Weight = float | optax.Schedule
"""A number, or one as a function of the optimizer step."""


ComputeDtype = Literal["float32", "bfloat16"]
"""Of activations; parameters, softmax, norm statistics and logits stay float32."""


class Embedding(NamedTuple):
    """One vector an example of a teacher's hidden states, as a batch may hold it."""

    layer: int
    """Of `Outputs.hidden`: 0 is the first, -1 the last."""
    read: str = "mean"
    """How positions become a vector, see `kd.features.layers.Read`."""
    of: Literal["example", "class"] = "example"
    """Of the example itself, or the mean of its class over the training set."""

    @property
    def name(self) -> str:
        """In a batch."""
        return f"teacher_{self.of}_{self.read}_{self.layer}"


class Head(flax.struct.PyTreeNode):
    """Logits that are not there yet.

        logits = cap tanh(raw / cap),   raw = scale (hidden kernel + bias)

    or raw itself without a cap. The fields have no array types because a gradient, a
    sharding and the like are heads of other leaves.
    """

    hidden: Any
    """Of every prediction, [*n, d], any float dtype."""
    kernel: Any
    """[d, v], any float dtype; logits are float32 (float64 if either is)."""
    bias: Any = None
    """[v], or None."""
    scale: float = flax.struct.field(pytree_node=False, default=1.0)
    cap: float | None = flax.struct.field(pytree_node=False, default=None)
    """Of Gemma's soft-capping."""
    num_classes: int | None = flax.struct.field(pytree_node=False, default=None)
    """Columns of the kernel that are classes; those after them are padding."""

    @property
    def num_outputs(self) -> int:
        """v, without the padding."""
        return self.num_classes or self.kernel.shape[1]

    def flat(self) -> "Head":
        """The same in rows, [n, d]."""
        return self.replace(hidden=self.hidden.reshape(-1, self.hidden.shape[-1]))

    @property
    def rows(self) -> Any:
        """What there is of every prediction; the rest is the same for all."""
        return self.hidden

    def with_rows(self, rows: Any) -> "Head":
        """The same of other predictions."""
        return self.replace(hidden=rows)

    def outputs(self) -> "Outputs":
        """With all logits, and what they are made by."""
        return Outputs(self.logits(), head=self)

    def emptied(self, where: Bool[Array, "n"]) -> "Head":
        """The same, [n, d], but with hidden states 0 where `where` is False.

        Whatever masked rows hold: the kernel's gradient multiplies them with 0.
        """
        return self.replace(hidden=jnp.where(where[:, None], self.hidden, 0))

    def logits(self) -> Float[Array, "*n v"]:
        """All of them: the products in the wider dtype of the two."""
        dtype = jnp.promote_types(self.hidden.dtype, self.kernel.dtype)
        rows = self.flat().hidden.astype(dtype)
        exact = jnp.promote_types(dtype, jnp.float32)
        raw = jnp.matmul(rows, self.kernel.astype(dtype), preferred_element_type=exact)
        if self.bias is not None:
            raw = raw + self.bias
        if self.scale != 1:
            raw = self.scale * raw
        if self.cap is not None:
            raw = self.cap * jnp.tanh(raw / self.cap)
        return raw[:, : self.num_classes].reshape(*self.hidden.shape[:-1], -1)


class TopLogits(flax.struct.PyTreeNode):
    """The largest logits of every prediction; all other classes are one, the tail.

        z = (t_i for i in ids, tail),   tail = tau log sum_(i not in ids) exp(t_i / tau)

    so that softmax(z / tau) has the probabilities of the k classes at the temperature
    tau, and of all others together. The fields have no array types, as in `Head`.
    """

    ids: Any
    """Of the classes, [*n, k], any integer dtype."""
    values: Any
    """Their logits, up to a constant of every prediction, [*n, k], any float dtype."""
    tails: Any
    """The tail at every temperature, up to the same constant, [*n, c]."""
    temperatures: tuple[float, ...] = flax.struct.field(pytree_node=False)

    def flat(self) -> "TopLogits":
        """The same in rows, [n, k]."""
        return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), self)

    @property
    def rows(self) -> Any:
        """What there is of every prediction: everything."""
        return self

    def with_rows(self, rows: Any) -> "TopLogits":
        """The same of other predictions."""
        return rows

    def emptied(self, where: Bool[Array, "n"]) -> "TopLogits":
        """The same, in rows, but 0 where `where` is False."""
        return jax.tree.map(lambda x: jnp.where(where[:, None], x, 0), self)

    def outputs(self) -> "Outputs":
        """Without logits of classes that have names: [*n, 0]."""
        return Outputs(jnp.zeros((*self.ids.shape[:-1], 0)), top=self)

    def logits(self, temperature: float) -> Float[Array, "*n l"]:
        """z at one of the temperatures, l = k + 1 of them."""
        tail = self.tails[..., self.temperatures.index(temperature), None]
        dtype = jnp.promote_types(self.values.dtype, tail.dtype)
        return jnp.concatenate([self.values.astype(dtype), tail.astype(dtype)], -1)


class Outputs(NamedTuple):
    """What one forward pass exposes.

    Unused entries cost nothing under `jax.jit`: XLA drops what nothing reads.
    """

    logits: Float[Array, "b *n v"]
    hidden: tuple[Float[Array, "b ..."], ...] = ()
    """Inner representations, from the input to the logits. Of text [b, n, d]: the
    embedding output, then the output of every layer. Of a ResNet [b, h, w, d]: the stem
    and every stage, then what they are pooled to, [b, d]. Of an MLP [b, d]. Of a
    teacher whose answers come with the batch, a mapping of the layers that are asked
    for, by their numbers, to one vector an example."""
    attention: tuple[Float[Array, "b h n n"], ...] = ()
    """Attention probabilities of every layer, before dropout."""
    source_hidden: tuple[Float[Array, "b n d"], ...] = ()
    """Of an encoder-decoder, `hidden` of the encoder; `hidden` and `attention` are the
    decoder's."""
    source_attention: tuple[Float[Array, "b h n n"], ...] = ()
    """Of an encoder-decoder, `attention` of the encoder."""
    cross_attention: tuple[Float[Array, "b h m n"], ...] = ()
    """Of an encoder-decoder, how every layer of the decoder attends to the source."""
    head: Head | None = None
    """What the logits are made by, where a loss may want to make them itself."""
    head_logits: tuple[Float[Array, "b v"], ...] = ()
    """Of a network with several classifiers, the logits of each; `logits` is their
    mean."""
    top: TopLogits | None = None
    """Of a teacher of whose logits no more is known; `logits` are then [b, *n, 0]."""


Cache = Any
"""What a network that writes remembers of the tokens read so far: a pytree of arrays,
each with the texts on its first axis, so that `jax.tree.map(lambda x: x[rows], cache)`
is the cache of other texts."""


class Decoder(NamedTuple):
    """A network that writes token by token, as two pure functions; dropout is off."""

    start: Callable[[Params, Batch, int], tuple[Float[Array, "b v"], Cache]]
    """(parameters, prompts or sources, tokens to leave room for) -> (logits of the
    first token to be written, cache)"""
    step: Callable[[Params, Cache, Int[Array, "b"]], tuple[Float[Array, "b v"], Cache]]
    """(parameters, cache, the token written last) -> (logits of the next, cache)"""


class Model(NamedTuple):
    """A network as pure functions; Linen, NNX or a lambda fit alike."""

    init: Callable[[PRNGKeyArray, Batch], Params]
    apply: Callable[[Params, Batch, PRNGKeyArray | None], Outputs]
    """The key drives dropout; None means evaluation."""
    decoder: Decoder | None = None
    """How it writes, if it does; see `kd.models.generate`."""


@runtime_checkable
class Architecture(Protocol):
    """The sizes of a network, a frozen dataclass; `kd.models.saved` stores it."""

    def build(self, num_classes: int, *, compute_dtype: ComputeDtype = ...) -> Model:
        """The network with a fresh head of `num_classes` outputs."""
        ...


class TrainState(flax.struct.PyTreeNode):
    """What training carries from step to step: arrays only, no functions.

    Teachers are not part of it; they are an argument of the step. The fields have no
    array types because libraries rebuild the state with other leaves: shapes,
    shardings, placeholders.
    """

    step: Any
    """Steps done, a scalar integer."""
    params: Params
    """Of every network that learns by its name, and those of the "objective"."""
    opt_state: Any
    key: Any
    """Root of all randomness; step `i` uses `fold_in(key, i)`."""
    memory: Any = ()
    """What a procedure carries besides, such as rollouts or a curriculum: arrays."""


class Training(NamedTuple):
    """A procedure at work, as two pure functions."""

    init: Callable[[PRNGKeyArray, Mapping[str, Params], Any, Batch], TrainState]
    """(key, parameters of the learners, those of the teachers, any batch) -> state"""
    step: Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]
    """(state, parameters of the teachers, batch) -> (next state, metrics); compiled,
    and the memory of the state given is reused for the one returned. What it draws is
    a function of the state's key and step, and what it remembers lies in the state, so
    that a run that was stopped goes on bit for bit."""
