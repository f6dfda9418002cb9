"""A table as a page: one HTML file that loads nothing, with a picture of every run."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kd.compare import text, words
from kd.report.markup import Markup, document, element, figure, table
from kd.report.svg import COLORS, style, to_svg

Record = Mapping[str, Any]


def html(record: Record) -> str:
    """The whole page."""
    made = record["made"]
    told = record["gap"]["told"]
    return document(
        record["name"],
        element("h1", record["name"]),
        element("p", record["headline"], class_="facts"),
        element("p", words.gap(record), class_="origin" if told else "origin warning"),
        element("p", f"{words.data(record)}; {words.seeds(record)}."),
        element("p", words.tuning(record)),
        figure(
            picture(record),
            "A dot is a run; the bar is the mean with its interval, which counts the "
            f"examples as well. Dashed: the baseline, {record['baseline']}"
            + (
                "; orange: the teacher."
                if record["gap"]["teacher"] is not None
                else "."
            ),
        ),
        table(text.header(record), text.body(record), class_="scores"),
        element("p", words.method(record), class_="caption"),
        *_section(
            f"Less {record['baseline']}, by the other metrics (p)",
            text.differences_header(record),
            [*text.differences(record)],
        ),
        *_section(
            "Selected settings",
            text.selected_header(record) if record["tuning"] else (),
            [*text.selected(record)],
        ),
        *_section("What papers say", text.CLAIMS_HEADER, [*text.claims(record)]),
        element("h2", "Every run"),
        *(_runs(row, record) for row in record["rows"]),
        element("h2", "How it was made"),
        table(
            None,
            [
                ("command", made["command"]),
                ("device", made["device"]),
                ("versions", made["versions"]),
                ("finished", made["finished"]),
            ],
            class_="facts-table",
        ),
    )


def _section(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[Markup]:
    """A table under its title; nothing where it has no rows."""
    if not rows:
        return []
    return [element("h2", title), table(head, rows, class_="facts-table")]


def _runs(row: Record, record: Record) -> Markup:
    """A row's runs, each with the command that repeats it, and its configuration."""
    metrics = record["metrics"]
    lines = [
        (
            f"seed {seed['seed']}",
            *(words.value(seed.get("scores", {}).get(m["name"]), m) for m in metrics),
            text.again(row, seed["seed"]),
            seed.get("failed", f"runs/networks/{seed['key']}"),
        )
        for seed in row["seeds"]
    ]
    heads = ["", *(words.unit(m) for m in metrics), "again", "run"]
    return element(
        "details",
        element("summary", row["name"] + _settings(row, record)),
        table(heads, lines, class_="facts-table"),
        element("pre", json.dumps(row["experiment"], indent=1)),
    )


def _settings(row: Record, record: Record) -> str:
    """What was selected for a row, and with which budget."""
    found = record["tuning"]
    for tuned in found["rows"] if found else ():
        if tuned["name"] == row["name"]:
            return f": {words.setting(tuned['selected'])} ({words.budget(found)})"
    return ""


def picture(record: Record) -> str:
    """Every run a dot, the mean with its interval, the baseline's line: an SVG."""
    from matplotlib.figure import Figure

    metric = record["metrics"][0]
    name, factor = metric["name"], 100 if metric.get("percent") else 1
    rows = record["rows"]
    height = 0.34 * len(rows) + 0.75
    with style():
        drawing = Figure(figsize=(7.2, height))
        axes = drawing.add_axes(
            (1.7 / 7.2, 0.55 / height, 5.35 / 7.2, 1 - 0.65 / height)
        )
        places = range(len(rows))
        for place, row in zip(places, rows, strict=True):
            dots = [
                s["scores"][name] for s in row["seeds"] if name in s.get("scores", {})
            ]
            # Side by side where they would cover each other, always alike.
            shifts = [0.28 * ((7 * i) % 11 / 11 - 0.5) for i in range(len(dots))]
            axes.plot(
                [factor * dot for dot in dots],
                [place + shift for shift in shifts],
                linestyle="none", marker="o", markersize=3.2, alpha=0.45,
                markeredgewidth=0, color=COLORS["student"],
            )  # fmt: skip
            entry = row["scores"].get(name)
            if entry and entry["low"] is not None:
                axes.plot(
                    [factor * entry["low"], factor * entry["high"]], [place, place],
                    color=COLORS["student"], solid_capstyle="butt",
                )  # fmt: skip
            if entry:
                axes.plot(
                    [factor * entry["mean"]], [place], marker="|", markersize=11,
                    markeredgewidth=2, color=COLORS["student"],
                )  # fmt: skip
        if record["gap"].get("baseline") is not None:
            axes.axvline(
                factor * record["gap"]["baseline"], color=COLORS["muted"],
                linestyle="--", linewidth=1,
            )  # fmt: skip
        if record["gap"]["teacher"] is not None:
            axes.axvline(factor * record["gap"]["teacher"], color=COLORS["teacher"])
        axes.set_yticks([*places], [row["name"] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(words.unit(metric))
        return to_svg(
            drawing,
            name="table",
            label=f"{metric['title']} of every run of {record['name']}",
        )
