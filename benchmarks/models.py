"""Networks of this project, and the same ones of transformers on PyTorch.

A BERT, a GPT-2 and a T5 with the same weights on both sides: logits of a batch, a
training step (cross-entropy, gradient, AdamW) without dropout, and greedy texts by a
cache at one row and at sixteen. Both are first shown to give the same logits, losses
and gradient norms, and the same texts token for token. Memory is what a step adds at
its peak to a process that has its network, each in a process of its own.

    python -m benchmarks.models
    python -m benchmarks.models --networks bert --no-compile
"""

import argparse
import functools
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import measure
from kd.errors import UserError
from kd.models import saved
from kd.models.bert import Bert
from kd.models.generate import generate
from kd.models.gpt2 import GPT2
from kd.models.t5 import T5
from kd.types import Batch

try:
    import torch
    import torch.nn.functional as F
    import transformers
except ImportError as error:
    sys.exit(f"error: {error.name} is missing; make bench installs it")

_OURS = "this project"
_TOLERANCE = 1e-4
_LEARNING_RATE = 1e-4


class Shape(NamedTuple):
    """A network, and what it reads."""

    network: Bert | GPT2 | T5
    batch_size: int
    num_tokens: int
    num_targets: int = 0
    """Of an encoder-decoder."""

    @property
    def tokens(self) -> int:
        """In a batch, of sources and targets."""
        return self.batch_size * (self.num_tokens + self.num_targets)


SHAPES = {
    "bert": Shape(
        Bert(
            num_layers=4, width=256, num_heads=4, mlp_width=1024, dropout=0.0,
            attention_dropout=0.0,
        ),
        32, 64,
    ),
    "gpt2": Shape(
        GPT2(dropout=0.0, embedding_dropout=0.0, attention_dropout=0.0), 4, 128
    ),
    "t5": Shape(T5(dropout=0.0), 8, 64, 32),
}  # fmt: skip
"""BERT-mini, and the smallest of GPT-2 and of T5 in their published sizes."""
_WRITTEN = 64
_PROMPT = 16


def tiny(shape: Shape) -> Shape:
    """The same at a size that computes at once, to try the benchmark."""
    sizes: dict[str, Any] = {"vocab_size": 97, "num_layers": 2, "width": 16}
    sizes |= {"num_heads": 2, "mlp_width": 24}
    if isinstance(shape.network, T5):
        sizes |= {"num_decoder_layers": 2, "head_width": 8}
    network = type(shape.network)(**{**vars(shape.network), **sizes})
    return shape._replace(network=network, batch_size=2)


def batch_of(shape: Shape) -> dict[str, np.ndarray]:
    """Random tokens without padding, and what is to be predicted."""
    random = np.random.default_rng(0)
    size, vocabulary = shape.batch_size, shape.network.vocab_size

    def tokens(n: int) -> np.ndarray:
        # Not the ids that end or begin texts.
        return random.integers(10, vocabulary, (size, n), dtype=np.int32)

    found = {"tokens": tokens(shape.num_tokens)}
    found["token_mask"] = np.ones_like(found["tokens"], bool)
    if shape.num_targets:
        found["target_tokens"] = tokens(shape.num_targets)
        found["target_mask"] = np.ones_like(found["target_tokens"], bool)
        found["labels"] = found["target_tokens"]
    elif isinstance(shape.network, Bert):
        found["labels"] = random.integers(0, 2, size, dtype=np.int32)
    else:
        found["labels"] = np.roll(found["tokens"], -1, axis=1)
    return found


class Ours:
    """This project's network, compiled for its batch."""

    def __init__(self, shape: Shape, directory: pathlib.Path):
        self.shape = shape
        num_outputs = 2 if isinstance(shape.network, Bert) else shape.network.vocab_size
        self.model = shape.network.build(num_outputs)
        self.batch: Batch = jax.tree.map(jnp.asarray, batch_of(shape))
        template = jax.eval_shape(self.model.init, jax.random.key(0), self.batch)
        self.params = saved.load(directory, shape.network, template).params
        optimizer = optax.adamw(_LEARNING_RATE)
        self.state = optimizer.init(self.params)

        def loss_of(params, batch):
            logits = self.model.apply(params, batch, None).logits
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits, batch["labels"]
            )
            return losses.mean()

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, state, batch):
            loss, gradient = jax.value_and_grad(loss_of)(params, batch)
            updates, state = optimizer.update(gradient, state, params)
            norm = optax.global_norm(gradient)
            return optax.apply_updates(params, updates), state, (loss, norm)

        self._step = step
        self._logits = jax.jit(
            lambda params, batch: self.model.apply(params, batch, None).logits
        )

    def logits(self) -> np.ndarray:
        return np.asarray(self._logits(self.params, self.batch))

    def step(self) -> tuple[float, float]:
        self.params, self.state, found = self._step(self.params, self.state, self.batch)
        loss, norm = jax.device_get(found)
        return float(loss), float(norm)

    def write(self, num_rows: int) -> np.ndarray:
        batch = {name: self.batch[name] for name in ("tokens", "token_mask")}
        batch = {name: _rows(x, num_rows)[:, :_PROMPT] for name, x in batch.items()}
        key = jax.random.key(0)
        found = generate(self.model, self.params, batch, key, num_tokens=_WRITTEN)
        return np.asarray(found.tokens)


class Theirs:
    """The network of transformers, with the attention that PyTorch has fused.

    Args:
        shape: what it reads.
        directory: of its weights.
        compiled: by torch.compile.
    """

    def __init__(self, shape: Shape, directory: pathlib.Path, *, compiled: bool):
        kind = {
            Bert: transformers.AutoModelForSequenceClassification,
            GPT2: transformers.AutoModelForCausalLM,
            T5: transformers.AutoModelForSeq2SeqLM,
        }[type(shape.network)]
        self.shape = shape
        self.network = kind.from_pretrained(directory).eval()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=_LEARNING_RATE, weight_decay=1e-4, fused=True
        )
        batch = {k: torch.from_numpy(x) for k, x in batch_of(shape).items()}
        self.labels = batch["labels"].long()
        self.given = {"input_ids": batch["tokens"].long()}
        if isinstance(shape.network, T5):
            # A target is read behind the token that texts begin with.
            start = torch.full((shape.batch_size, 1), shape.network.start_token)
            read = torch.cat([start, batch["target_tokens"].long()[:, :-1]], 1)
            self.given["decoder_input_ids"] = read
        self._call: Callable[..., Any] = self.network
        if compiled:
            self._call = torch.compile(self.network)

    def logits(self) -> np.ndarray:
        with torch.no_grad():
            return self._found().numpy()

    def _found(self) -> "torch.Tensor":
        more = {} if isinstance(self.shape.network, Bert) else {"use_cache": False}
        return self._call(**self.given, **more).logits

    def step(self) -> tuple[float, float]:
        logits = self._found()
        loss = F.cross_entropy(logits.flatten(0, -2), self.labels.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        self.optimizer.step()
        return loss.item(), norm.item()

    def write(self, num_rows: int) -> np.ndarray:
        prompt = _rows(self.given["input_ids"], num_rows)[:, :_PROMPT]
        with torch.no_grad():
            found = self.network.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                num_beams=1, max_new_tokens=_WRITTEN, min_new_tokens=_WRITTEN,
                eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
        written = 1 if self.shape.num_targets else _PROMPT
        return found[:, written:].numpy()


def _rows(x: Any, num_rows: int) -> Any:
    """The first rows, and again, until there are so many."""
    times = -(-num_rows // len(x))
    tiled = (
        torch.cat([x] * times)
        if isinstance(x, torch.Tensor)
        else jnp.tile(x, (times, 1))
    )
    return tiled[:num_rows]


def made(
    shape: Shape, directory: pathlib.Path, *, compiled: bool = True
) -> dict[str, Callable[[], Ours | Theirs]]:
    """How every contender is made, ours first."""
    theirs = functools.partial(Theirs, shape, directory)
    found: dict[str, Callable[[], Ours | Theirs]] = {
        _OURS: functools.partial(Ours, shape, directory),
        "transformers": functools.partial(theirs, compiled=False),
    }
    if compiled:
        found["transformers, compiled"] = functools.partial(theirs, compiled=True)
    return found


def put(shape: Shape, directory: pathlib.Path) -> None:
    """Writes fresh weights for both sides."""
    num_outputs = 2 if isinstance(shape.network, Bert) else shape.network.vocab_size
    model = shape.network.build(num_outputs)
    params = jax.jit(model.init)(jax.random.key(0), batch_of(shape))
    labels = ("a", "b") if isinstance(shape.network, Bert) else ()
    saved.save(directory, shape.network, params, labels=labels)


def compared(contenders: dict[str, Ours | Theirs]) -> dict[str, dict[str, float]]:
    """Largest relative differences from ours, of logits and of three steps.

    Raises:
        UserError: one of them is larger than 1e-4.
    """
    first, *others = contenders
    found: dict[str, dict[str, float]] = {}
    logits = contenders[first].logits()
    steps = np.array([contenders[first].step() for _ in range(3)])
    for name in others:
        theirs = contenders[name].logits()
        there = np.array([contenders[name].step() for _ in range(3)])
        loss, norm = np.abs(there / steps - 1).max(axis=0)
        found[name] = {
            "logits": float(np.abs(theirs - logits).max() / np.abs(logits).max()),
            "loss": float(loss),
            "grad_norm": float(norm),
        }
        for what, apart in found[name].items():
            if not apart <= _TOLERANCE:  # also if it is NaN
                raise UserError(
                    f"{what} of {name} is {apart:.1e} off ours, more than "
                    f"{_TOLERANCE:.0e}; nothing was timed"
                )
    return found


def same_texts(contenders: dict[str, Ours | Theirs], num_rows: int) -> None:
    """Raises UserError unless all write the same."""
    expected = contenders[_OURS].write(num_rows)
    for name, contender in contenders.items():
        found = contender.write(num_rows)
        if not np.array_equal(found, expected):
            differ = np.count_nonzero((found != expected).any(axis=1))
            raise UserError(
                f"{name} writes something else in {differ} of {num_rows} texts; "
                "nothing was timed"
            )


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = measure.parser("models", __doc__)
    parser.add_argument("--networks", nargs="+", default=[*SHAPES], choices=SHAPES)
    parser.add_argument("--blocks", type=int, default=11)
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try it")
    parser.add_argument(
        "--no-compile", action="store_true", help="leave torch.compile out"
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="do not weigh, which starts processes"
    )
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _prepare()
    if options.peak_of:
        name, contender, directory, small = json.loads(options.peak_of)
        shape = tiny(SHAPES[name]) if small else SHAPES[name]
        side = made(shape, pathlib.Path(directory))[contender]()
        print(measure.added_at_peak(side.step))
        return 0
    return measure.write_result(options.output, lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Compares, races and weighs the contenders of every network."""
    races, differences = [], {}
    for name in options.networks:
        shape = tiny(SHAPES[name]) if options.tiny else SHAPES[name]
        with tempfile.TemporaryDirectory() as place:
            directory = pathlib.Path(place)
            put(shape, directory)
            makers = made(shape, directory, compiled=not options.no_compile)
            contenders = {which: make() for which, make in makers.items()}
            differences[name] = compared(contenders)
            sizes = f"{shape.batch_size} x {shape.num_tokens}"
            sizes += f" + {shape.num_targets}" if shape.num_targets else ""
            count = [shape.tokens] * options.blocks
            races.append(
                measure.race(
                    {k: _block(x.logits) for k, x in contenders.items()},
                    count,
                    title=f"{name}, logits of {sizes}",
                )
            )
            race = measure.race(
                {k: _block(x.step) for k, x in contenders.items()},
                count,
                title=f"{name}, training step of {sizes}",
            )
            if not options.no_memory:
                race["peak_bytes"] = {
                    which: measure.added_in_own_process(
                        "models", [name, which, place, options.tiny]
                    )
                    for which in makers
                }
            races.append(race)
            if isinstance(shape.network, Bert):
                continue
            # Trained for some steps, texts would hang on ties of rounding.
            writers = {which: makers[which]() for which in [*makers][:2]}
            for num_rows in (1, 16):
                same_texts(writers, num_rows)
                races.append(
                    measure.race(
                        {
                            which: _block(functools.partial(writer.write, num_rows))
                            for which, writer in writers.items()
                        },
                        [num_rows * _WRITTEN] * options.blocks,
                        title=f"{name}, {_WRITTEN} tokens written in {num_rows} texts",
                    )
                )
    return {
        "title": "Networks against transformers on PyTorch",
        "aim": 1.0,
        "setting": {"data": "random tokens, no dropout", "unit": "tokens"},
        "largest_differences": differences,
        "races": races,
    }


def _block(work: Callable[[], Any]) -> Callable[[int], Any]:
    return lambda _: work()


def _prepare() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    measure.prepare_pytorch()


if __name__ == "__main__":
    sys.exit(main())
