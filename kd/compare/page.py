"""A table as a page: one HTML file that loads nothing, with a picture of every run."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kd.compare import text, words
from kd.compare.picture import picture
from kd.report.markup import Markup, document, element, figure, table

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
            "examples as well. On the right, paired differences with theirs. Dashed: "
            f"the baseline, {record['baseline']}"
            + (
                "; orange: the teacher."
                if record["gap"]["teacher"] is not None
                else "."
            ),
        ),
        table(text.header(record), text.body(record), class_="scores compared"),
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
