"""A table as a picture: every run, and what is between each row and the baseline."""

from collections.abc import Mapping, Sequence
from typing import Any

from kd.compare import words
from kd.report.svg import COLORS, style, to_svg

Record = Mapping[str, Any]

_WIDTH, _NAMES, _GAP, _MARGIN = 10.0, 1.9, 0.25, 0.1
_TOP, _BOTTOM, _ROW = 0.1, 0.55, 0.34
"""In inches."""


def picture(record: Record) -> str:
    """The scores of a table and their differences to the baseline, as an SVG.

    On the left a dot for every run and the mean with its interval; on the right the
    paired difference to the baseline with its own, which is the narrower the more the
    two agree about examples.
    """
    from matplotlib.figure import Figure

    rows, metric = record["rows"], record["metrics"][0]
    height = _ROW * len(rows) + _TOP + _BOTTOM
    half = (_WIDTH - _NAMES - _GAP - _MARGIN) / 2
    with style():
        drawing = Figure(figsize=(_WIDTH, height))

        def panel(left: float) -> Any:
            axes = drawing.add_axes(
                (
                    left / _WIDTH,
                    _BOTTOM / height,
                    half / _WIDTH,
                    _ROW * len(rows) / height,
                )
            )
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
            return axes

        scores, differences = panel(_NAMES), panel(_NAMES + half + _GAP)
        _draw_scores(scores, record)
        _draw_differences(differences, record)
        scores.set_yticks([*range(len(rows))], [row["name"] for row in rows])
        differences.set_yticks([*range(len(rows))], [""] * len(rows))
        scores.set_xlabel(words.unit(metric))
        points = " (points)" if metric.get("percent") else ""
        differences.set_xlabel(f"less {record['baseline']}{points}")
        return to_svg(
            drawing,
            name="table",
            label=f"{metric['title']} of every run of {record['name']}, and the "
            f"differences of its rows to {record['baseline']}",
        )


def on_white(svg: str) -> str:
    """The same, to stand alone: what shows it may be dark."""
    return svg.replace('style="', 'style="background: #ffffff; ', 1)


def _draw_scores(axes: Any, record: Record) -> None:
    name, factor = _main(record)
    for place, row in enumerate(record["rows"]):
        dots = [s["scores"][name] for s in row["seeds"] if name in s.get("scores", {})]
        # Side by side where they would cover each other, always alike.
        shifts = [0.28 * ((7 * i) % 11 / 11 - 0.5) for i in range(len(dots))]
        axes.plot(
            [factor * dot for dot in dots],
            [place + shift for shift in shifts],
            linestyle="none", marker="o", markersize=3.2, alpha=0.45,
            markeredgewidth=0, color=COLORS["student"],
        )  # fmt: skip
        _draw_interval(axes, row["scores"].get(name), place, factor)
    if record["gap"].get("baseline") is not None:
        _draw_baseline(axes, factor * record["gap"]["baseline"])
    if record["gap"]["teacher"] is not None:
        axes.axvline(factor * record["gap"]["teacher"], color=COLORS["teacher"])


def _draw_differences(axes: Any, record: Record) -> None:
    name, factor = _main(record)
    for place, row in enumerate(record["rows"]):
        _draw_interval(axes, row["differences"].get(name), place, factor)
    _draw_baseline(axes, 0.0)


def _draw_interval(axes: Any, entry: Record | None, place: int, factor: float) -> None:
    if not entry:
        return
    ends: Sequence[float | None] = entry["low"], entry["high"]
    if None not in ends:
        axes.plot(
            [factor * end for end in ends],  # pyrefly: ignore
            [place, place],
            color=COLORS["student"], solid_capstyle="butt",
        )  # fmt: skip
    axes.plot(
        [factor * entry["mean"]], [place], marker="|", markersize=11,
        markeredgewidth=2, color=COLORS["student"],
    )  # fmt: skip


def _draw_baseline(axes: Any, value: float) -> None:
    axes.axvline(value, color=COLORS["muted"], linestyle="--", linewidth=1)


def _main(record: Record) -> tuple[str, float]:
    """Name of the metric that rows are compared by, and what it is shown times."""
    metric = record["metrics"][0]
    return metric["name"], 100 if metric.get("percent") else 1
