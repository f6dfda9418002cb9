"""Losses over a large vocabulary: logits all at once, or some rows at a time.

Value, and gradient of the student's hidden states and head, of a mean over tokens. Both
heads and all hidden states are random, float32. In JAX with all logits and through
`kd.objective.chunked`; in PyTorch eagerly, compiled, with parts of the rows that are
checkpointed, and by its own `linear_cross_entropy`, which knows cross-entropy alone.
What they find is compared first. Memory is what one evaluation adds at its peak to a
process that has its inputs, each in a process of its own.

    python -m benchmarks.large_vocabulary --vocabularies 32000 131072 --widths 576 2048

SinKD and ATKD couple their rows; with all logits and without, in this project alone:

    python -m benchmarks.large_vocabulary --losses SinKD --tokens 256
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from kd.divergences import ATKD, JS, KL, ReverseKL, SinKD, TotalVariation
from kd.objective import CrossEntropy, Loss
from kd.objective.chunked import rows_at_once, weighted_sum
from kd.types import Head, Outputs

LOSSES: dict[str, tuple[Loss, ...]] = {
    "CE": (CrossEntropy(),),
    "KL": (KL(),),
    "reverse KL": (ReverseKL(),),
    "JS": (JS(),),
    "TV": (TotalVariation(),),
    "CE + KL": (CrossEntropy(), KL()),
}
COUPLED: dict[str, tuple[Loss, ...]] = {"SinKD": (SinKD(),), "ATKD": (ATKD(),)}
"""Of all tokens together: the first takes tokens x tokens x classes operations."""


class Problem(NamedTuple):
    """How much is computed."""

    loss: str
    num_tokens: int
    num_classes: int
    width: int

    @property
    def title(self) -> str:
        return f"{self.loss}, {self.num_classes:,} classes, width {self.width:,}"


def inputs(problem: Problem) -> dict[str, np.ndarray]:
    """Hidden states [n, d] and kernels [v, d] of both, labels [n]."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, np.float32)

    _, n, v, d = problem
    return {
        "hidden": normal(n, d),
        "kernel": normal(v, d) / np.float32(d**0.5),
        "teacher_hidden": normal(n, d),
        "teacher_kernel": normal(v, d) / np.float32(d**0.5),
        "labels": random.integers(v, size=n),
    }


Side = Callable[[], tuple[float, np.ndarray, np.ndarray]]
"""Loss, and the gradients of hidden states and kernel."""


def in_jax(problem: Problem, given: dict[str, np.ndarray], *, chunked: bool) -> Side:
    """This project, on all logits or some rows at a time."""
    losses = (LOSSES | COUPLED)[problem.loss]
    arrays = {name: jnp.asarray(x) for name, x in given.items()}
    weights, n = jnp.ones(len(losses)), problem.num_tokens
    row_weights = jnp.full(n, 1 / n)

    def total(hidden, kernel, arrays):
        student = Head(hidden, kernel.T)
        teacher = None
        if any(loss.needs_teacher for loss in losses):
            teacher = Head(arrays["teacher_hidden"], arrays["teacher_kernel"].T)
        batch = {"labels": arrays["labels"], "mask": jnp.ones(n, bool)}
        if chunked:
            found = [loss.over_rows(batch, student, teacher) for loss in losses]
            parts = [part for part in found if part is not None]
            if (values := parts[0].values) is not None:
                return jnp.vdot(values, row_weights)
            return weighted_sum(
                [part.loss for part in parts], weights, student, teacher, parts[0].rows,
                jnp.stack([row_weights] * len(losses)),
                num_rows=rows_at_once(problem.num_classes),
            )[0]  # fmt: skip
        ours = Outputs(student.logits())
        theirs = None if teacher is None else Outputs(teacher.logits())
        return sum(
            loss.per_example((), ours, theirs, batch) @ row_weights for loss in losses
        )

    found = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))

    def side():
        value, (hidden, kernel) = jax.block_until_ready(
            found(arrays["hidden"], arrays["kernel"], arrays)
        )
        return float(value), np.asarray(hidden), np.asarray(kernel)

    return side


def in_torch(problem: Problem, given: dict[str, np.ndarray], how: str) -> Side:
    """PyTorch: "eager", "compiled", "checkpointed" or "linear_cross_entropy"."""
    import torch
    from torch.nn import functional
    from torch.utils.checkpoint import checkpoint

    tensors = {name: torch.from_numpy(x) for name, x in given.items()}
    hidden, kernel = (tensors[name].requires_grad_() for name in ("hidden", "kernel"))

    def kl(log_a, log_b):
        return (log_a.exp() * (log_a - log_b)).sum()

    def of_rows(hidden, kernel, teacher_hidden, labels):
        student = hidden @ kernel.T
        total = 0.0
        if "CE" in problem.loss:
            total = functional.cross_entropy(student, labels, reduction="sum")
        if problem.loss == "CE":
            return total
        with torch.no_grad():
            log_q = (teacher_hidden @ tensors["teacher_kernel"].T).log_softmax(-1)
        log_p = student.log_softmax(-1)
        if "reverse" in problem.loss:
            return kl(log_p, log_q)
        if "KL" in problem.loss:
            return total + kl(log_q, log_p)
        if problem.loss == "TV":
            return 0.5 * (log_p.exp() - log_q.exp()).abs().sum()
        log_m = torch.logaddexp(log_p, log_q) - np.log(2)
        return 0.5 * (kl(log_p, log_m) + kl(log_q, log_m))

    compiled = torch.compile(of_rows)

    def loss():
        rows = hidden, tensors["teacher_hidden"], tensors["labels"]
        if how == "linear_cross_entropy":
            return functional.linear_cross_entropy(
                hidden, kernel, rows[2], reduction="sum",
                options=torch.nn.LinearCrossEntropyOptions(),
            )  # fmt: skip
        if how != "checkpointed":
            function = compiled if how == "compiled" else of_rows
            return function(rows[0], kernel, *rows[1:])
        size = rows_at_once(problem.num_classes)
        return sum(
            checkpoint(of_rows, part[0], kernel, *part[1:], use_reentrant=False)
            for part in zip(*(x.split(size) for x in rows), strict=True)
        )

    def side():
        hidden.grad = kernel.grad = None
        value = torch.as_tensor(loss() / problem.num_tokens)
        value.backward()
        return value.item(), np.asarray(hidden.grad), np.asarray(kernel.grad)

    return side


def sides(problem: Problem) -> dict[str, Callable[[dict[str, np.ndarray]], Side]]:
    """By name; the first is compared with the others."""
    made = {
        "kd, some rows at a time": functools.partial(in_jax, problem, chunked=True),
        "kd, all logits": functools.partial(in_jax, problem, chunked=False),
    }
    if problem.loss in COUPLED:
        return made
    made |= {
        f"torch, {how}": functools.partial(in_torch, problem, how=how)
        for how in ("eager", "compiled", "checkpointed")
    }
    if problem.loss == "CE":
        made["torch, linear_cross_entropy"] = functools.partial(
            in_torch, problem, how="linear_cross_entropy"
        )
    return made


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = measure.parser("large_vocabulary", __doc__)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[576])
    parser.add_argument(
        "--losses", nargs="+", default=list(LOSSES), choices=[*LOSSES, *COUPLED]
    )
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        name, *problem = json.loads(options.peak_of)
        print(_peak(Problem(*problem), name))
        return 0
    return measure.write_result(options.output, lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Compares, races and weighs the contenders of every problem."""
    problems = [
        Problem(loss, options.tokens, num_classes, width)
        for num_classes in options.vocabularies
        for width in options.widths
        for loss in options.losses
    ]
    races, differences = [], {}
    for problem in problems:
        given = inputs(problem)
        contenders = {name: make(given) for name, make in sides(problem).items()}
        # Two probabilities that agree but for rounding have a sign in the gradient of
        # SinKD: a few entries then differ, by more than their rounding.
        size = np.linalg.norm if problem.loss in COUPLED else _largest
        differences[problem.title] = compared(contenders, size)
        race = measure.race(
            {name: lambda _, side=side: side() for name, side in contenders.items()},
            [problem.num_tokens] * options.blocks,
            title=problem.title,
        )
        del contenders
        peaks = {
            name: measure.added_in_own_process("large_vocabulary", [name, *problem])
            for name in sides(problem)
        }
        races.append(race | {"peak_bytes": peaks})
    return {
        "title": "Losses over a large vocabulary",
        "setting": {"data": f"random, {options.tokens:,} tokens", "unit": "tokens"},
        "largest_differences": differences,
        "races": races,
    }


def _largest(x: np.ndarray) -> Any:
    return np.abs(x).max()


def compared(
    contenders: dict[str, Side], size: Callable[[Any], Any] = _largest
) -> dict[str, float]:
    """The largest difference of each from the first, relative to its size.

    Args:
        contenders: by name.
        size: of an array: its largest entry, or a norm.

    Raises:
        ValueError: one computes something else.
    """
    first, *names = contenders
    expected = contenders[first]()
    found = {}
    for name in names:
        pairs = zip(contenders[name](), expected, strict=True)
        found[name] = max(float(size(a - b) / size(b)) for a, b in pairs)
        if not found[name] < 1e-3:
            raise ValueError(f"{name} differs from {first} by {found[name]:.1e}")
    return found


def _peak(problem: Problem, name: str) -> int:
    return measure.added_at_peak(sides(problem)[name](inputs(problem)))


if __name__ == "__main__":
    sys.exit(main())
