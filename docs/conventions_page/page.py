"""Writes docs/conventions.md: what losses compute, here and in published codes.

python -m docs.conventions_page.page docs/conventions.md
"""

import argparse
import dataclasses
import functools
import inspect
import pathlib
import sys
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from docs import conventions_page
from docs.conventions_page import comparison
from docs.conventions_page.comparison import Convention
from docs.conventions_page.published import Pair
from kd.divergences import (
    ATKD,
    DIST,
    DKD,
    JS,
    KL,
    AdaptiveKL,
    Alpha,
    BalancedKL,
    BatchCorrelation,
    ChiSquared,
    ClassCorrelation,
    ComparativeKL,
    ContinuationKD,
    FDivergence,
    HardCrossEntropy,
    Hellinger,
    Jeffreys,
    LogitMSE,
    OptimalTransport,
    RankCorrelation,
    Renyi,
    ReverseCrossEntropy,
    ReverseKL,
    SinKD,
    SinkhornDivergence,
    SkewedKL,
    SkewedReverseKL,
    SoftCrossEntropy,
    Standardized,
    TotalVariation,
    ValueCorrelation,
)
from kd.objective import Loss, Mix


def t_log_t(t):
    """The generator of KL."""
    return t * jnp.log(t)


LOSSES: tuple[Loss, ...] = (
    KL(), ReverseKL(), Jeffreys(), BalancedKL(), AdaptiveKL(), JS(), SkewedKL(),
    SkewedReverseKL(), SoftCrossEntropy(), ReverseCrossEntropy(), HardCrossEntropy(),
    TotalVariation(), Hellinger(), ChiSquared(), Alpha(), Renyi(),
    FDivergence(generator=t_log_t),
    LogitMSE(), ContinuationKD(), Standardized(KL()), DKD(), ATKD(), ValueCorrelation(),
    RankCorrelation(), DIST(), BatchCorrelation(), ClassCorrelation(), ComparativeKL(),
    SinKD(), SinkhornDivergence(), OptimalTransport(),
)  # fmt: skip
"""One of every divergence, with its defaults."""

_INTRODUCTION = """\
# Conventions

Losses of the same name differ between codes by a factor of the temperature squared, by
the meaning of β, by a sum where another takes a mean, or by what they hold constant.
This page says how, on one pair of logits, and which loss of this project equals which
of theirs. It is written by `make docs`; the tests recompute every number, compare it
with its equal here in value and gradient, and, where the code's own values are kept in
`tests/golden`, the formula with those.

p = softmax(s / temperature) is the student, q likewise of t the teacher. A loss here
gives one value per example or token, and a mix takes their mean over those that count.
"""

_PAIR = """\
Two sequences of four tokens over five classes. The last token of the second one is
padding and counts for nothing; codes for images see the other seven as examples.
"""

_HERE = """\
With the defaults, in nats where they are divergences of predictions; the mean over the
seven tokens. No gradient flows into the teacher. KL and its relatives are multiplied by
temperature² unless `temperature_squared` is off.
"""

_CODES = """\
"× T²": whether the code multiplies by the temperature squared; empty where it has no
temperature. "equals here" holds in value and gradient, with the defaults above where
nothing else is written; H(q) is the teacher's entropy, which has no gradient. Weights
of whole terms are left out. The versions: SinKD 1ffac90 (its sample-wise ablation
6bca0fa), f-DISTILL 8e2ff7c, DistiLLM d47e77f, DistiLLM-2 fe4cf9b, ATKD 71802dc, R2KD
ece240e (with its copy of mdistiller), DIST as copied in KD++ fc6f3f9, AKL ff278be, DSKD
077337a, Annealing-KD bb44348, TRL f2cd577, Liger ead96b6, EasyDeL 090a03b, Tunix
c7d8950, torchdistill 01038e7, DistillKit 361c7ac.
"""


def main() -> int:
    """Writes the page to the file that is named; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.conventions_page.page")
    parser.add_argument("file", type=pathlib.Path, help="docs/conventions.md")
    parser.parse_args().file.write_text(page(), encoding="utf-8")
    return 0


def page() -> str:
    """The whole page, in Markdown."""
    with jax.enable_x64(True):
        sections = [
            _INTRODUCTION,
            "## The pair\n",
            _PAIR,
            _logits(),
            "## What this project computes\n",
            _HERE,
            _table(
                ("loss", "formula", "value"),
                (
                    (
                        f"`{described(loss, defaults=True)}`",
                        _formula(loss),
                        _number(functools.partial(comparison.value_of, loss)),
                    )
                    for loss in LOSSES
                ),
            ),
            "## What published codes compute\n",
            _CODES,
        ]
        for family in conventions_page.FAMILIES:
            sections.append(f"### {family.title}\n")
            if family.note:
                sections.append(f"{family.note}\n")
            sections.append(codes_table(family.conventions))
    return "\n".join(sections)


def codes_table(listed: Iterable[Convention]) -> str:
    """A line for every convention, in Markdown."""
    return _table(
        ("code", "computes", "× T²", "mean over", "value", "equals here", "note"),
        (
            (
                c.code,
                c.formula,
                c.squared,
                c.over,
                _number(c.computes),
                _equal(c),
                c.note,
            )
            for c in listed
        ),
    )


def described(loss: Loss | Mix, *, defaults: bool = False) -> str:
    """As one would write it: with the settings that are not the defaults, or all."""
    if isinstance(loss, Mix):
        return " + ".join(
            f"{term.weight:.4g} * {described(term.loss)}" for term in loss.terms
        )
    settings = []
    for field in dataclasses.fields(loss):  # pyrefly: ignore[bad-argument-type]
        value = getattr(loss, field.name)
        if defaults or value != field.default:
            shown = described(value) if isinstance(value, Loss) else repr(value)
            shown = getattr(value, "__name__", shown)
            settings.append(f"{field.name}={shown}")
    return f"{type(loss).__name__}({', '.join(settings)})"


def _equal(convention: Convention) -> str:
    if convention.here is None:
        return "nothing"
    entropy = {0.0: "", 1.0: " + H(q)"}.get(
        convention.entropy, f" + {convention.entropy:g} H(q)"
    )
    where = {
        "counted": "",
        "all": ", over all tokens",
        "padding": ", over padding",
        "sequences": ', `average="sequences"`',
    }[convention.positions]
    return f"`{described(convention.here)}`{entropy}{where}"


def _formula(loss: Loss) -> str:
    """The first indented block of the docstring, which is the formula."""
    lines = inspect.cleandoc(type(loss).__doc__ or "").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("    "))
    block = []
    for line in lines[first:]:
        if not line.startswith("    "):
            break
        block.append(line[4:])
    # A backtick would end the code that the line is set as.
    block = [" ".join(line.replace("`", "").split()) for line in block]
    return "<br>".join(f"`{line}`" for line in block)


def _logits() -> str:
    rows = []
    for b, sequence in enumerate(comparison.STUDENT):
        for n, student in enumerate(sequence):
            label = str(comparison.LABELS[b][n])
            counted = "" if comparison.COUNTED[b][n] else "padding"
            teacher = comparison.TEACHER[b][n]
            cells = (" ".join(f"{x:g}" for x in side) for side in (student, teacher))
            rows.append((f"{b + 1}.{n + 1}", *cells, label, counted))
    return _table(("token", "student", "teacher", "label", ""), rows)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    ruler = ["---:" if name == "value" else "---" for name in header]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n"
        for row in (header, ruler, *rows)
    )


def _number(loss: Callable[[Pair], jax.Array]) -> str:
    pair = comparison.fixed_pair()
    compiled = jax.jit(lambda student: loss(pair._replace(student=student)))
    return f"{float(compiled(pair.student)):.4g}"


if __name__ == "__main__":
    sys.exit(main())
