"""The table that a run ends with on the terminal."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd.report.files import main_metric
from kd.report.quantities import count, described, duration, rounded, score

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
    data, task = summary.get("data") or {}, summary.get("task") or {}
    shown = _shown(task)
    title = (
        f"{summary.get('name', 'run')}, seed {described(summary.get('seed'))}, "
        f"scale {described(summary.get('scale'))}"
    )
    lines = [
        title,
        "-" * min(len(title), WIDTH),
        _row("", "parameters", *(_heading(metric, data) for metric in shown)),
    ]
    if teacher:
        lines.append(_model("teacher", teacher, shown))
    lines.append(_model("student", student, shown))
    for name, other in (summary.get("others") or {}).items():
        lines.append(_model(name, other, shown))
    if teacher and fidelity:
        measures = task.get("fidelity") or []
        lines += _line(
            "fidelity",
            ", ".join(
                f"{metric['title']} {score(fidelity.get(metric['name']), metric)}"
                for metric in measures
            ),
        )
    best, main = student.get("best") or {}, main_metric(summary)
    if best.get("step") is not None:
        lines += _line(
            "best",
            f"dev {main.get('title', best.get('metric'))} "
            f"{score(best.get('value'), main)} at step {best['step']:,}",
        )
    lines += _line("data", described(data.get("origin")))
    queries = summary.get("teacher_queries")
    lines += _line(
        "training",
        f"{count(speed.get('steps'))} steps, "
        f"{count(rounded(speed.get('examples_per_second')))} examples/s"
        + (f", {queries:,} teacher queries" if queries else ""),
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


def _shown(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The official metrics and what else there is room for, three in all."""
    metrics = task.get("metrics") or []
    official = [m for m in metrics if m["name"] in (task.get("official") or [])]
    # How sure it is of itself says more than another count of what is right.
    others = [m for m in metrics if not m["higher_is_better"] and m not in official]
    return [*official, *others][:3]


def _heading(metric: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    whole = f"{data.get('final', 'dev')} {metric['title']}"
    # With a space before it in a cell of 14.
    return whole if len(whole) < 14 else metric["title"][:13]


def _model(name: str, scores: Mapping[str, Any], shown: list[Mapping[str, Any]]) -> str:
    return _row(
        name,
        count(scores.get("num_params")),
        *(score(scores.get(metric["name"]), metric) for metric in shown),
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
