"""The table that a run ends with on the terminal."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd.report.quantities import count, decimal, described, duration, percent, rounded

WIDTH = 80
INDENT = 12


def final_table(
    summary: Mapping[str, Any], *, directory: str | Path | None = None
) -> str:
    """Teacher against student in a few lines, at most 80 columns wide.

    Args:
        summary: what summary.json holds; entries that it lacks show as a dash.
        directory: of the run, to say where the page and the numbers are. A path is
            never broken, so only a long one can pass the 80 columns.

    Returns:
        Lines without a trailing newline and without colour codes.
    """
    teacher, student = summary.get("teacher"), summary.get("student") or {}
    fidelity, speed = summary.get("fidelity") or {}, summary.get("speed") or {}
    data = summary.get("data") or {}
    title = (
        f"{summary.get('name', 'run')}, seed {described(summary.get('seed'))}, "
        f"scale {described(summary.get('scale'))}"
    )
    lines = [
        title,
        "-" * min(len(title), WIDTH),
        _row("", "parameters", "dev accuracy", "NLL (nats)", "ECE"),
    ]
    if teacher:
        lines.append(_model("teacher", teacher))
    lines.append(_model("student", student))
    if teacher and fidelity:
        lines += _line(
            "fidelity",
            f"same prediction on {percent(fidelity.get('agreement'))}, "
            f"KL {decimal(fidelity.get('kl'))} nats, "
            f"total variation {decimal(fidelity.get('total_variation'))}",
        )
    if student.get("best_step") is not None:
        lines += _line(
            "best",
            f"dev accuracy {percent(student.get('best_accuracy'))} "
            f"at step {student['best_step']:,}",
        )
    lines += _line("data", described(data.get("origin")))
    lines += _line(
        "training",
        f"{count(speed.get('steps'))} steps, "
        f"{count(rounded(speed.get('examples_per_second')))} examples/s",
    )
    lines += _line(
        "time",
        f"student {duration(speed.get('seconds_train'))}, "
        f"teacher {duration(speed.get('seconds_teacher'))}, "
        f"in all {duration(speed.get('seconds_total'))}",
    )
    if directory is not None:
        # Of a run that is there, but could not have its page drawn.
        no_page = Path(directory, "summary.json").exists() and not (
            Path(directory, "report.html").exists()
        )
        for label, name in (("page", "report.html"), ("numbers", "summary.json")):
            if label == "numbers" or not no_page:
                lines.append(f"{label:<{INDENT}}{Path(directory) / name}")
    return "\n".join(lines)


def _model(name: str, scores: Mapping[str, Any]) -> str:
    return _row(
        name,
        count(scores.get("num_params")),
        percent(scores.get("accuracy")),
        decimal(scores.get("nll")),
        percent(scores.get("ece")),
    )


def _row(name: str, *cells: str) -> str:
    return f"{name:<{INDENT}}" + "".join(f"{cell:>14}" for cell in cells)


def _line(label: str, text: str) -> list[str]:
    """The text beside its label, wrapped under itself."""
    wrapped = textwrap.wrap(text, WIDTH - INDENT, break_on_hyphens=False)
    return [
        f"{name:<{INDENT}}{part}"
        for name, part in zip([label] + [""] * len(wrapped), wrapped, strict=False)
    ]
