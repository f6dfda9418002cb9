"""A table as Markdown and as CSV."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from kd.compare import words
from kd.report.quantities import MISSING

Record = Mapping[str, Any]


def markdown(record: Record) -> str:
    """The whole record for a reader, in GitHub's Markdown."""
    return "\n".join([*_lines(record), ""])


def _lines(record: Record) -> Iterator[str]:
    main = record["metrics"][0]
    yield f"# {record['name']}"
    yield ""
    yield record["headline"]
    yield ""
    yield f"**{words.gap(record)}**"
    yield ""
    yield (
        f"{words.data(record)}; {words.seeds(record)}; baseline "
        f"{record['baseline']}. {words.tuning(record)}"
    )
    yield ""
    yield from _table(header(record), body(record))
    if others := [*differences(record)]:
        yield from ("", f"Less {record['baseline']}, by the other metrics (p):", "")
        yield from _table(differences_header(record), others)
    if chosen := [*selected(record)]:
        yield from ("", "Selected settings:", "")
        yield from _table(selected_header(record), chosen)
    failed = [
        f"* {row['name']}, seed {seed['seed']}: {seed['failed']}"
        for row in record["rows"]
        for seed in row["seeds"]
        if "failed" in seed
    ]
    if failed:
        yield from ("", "Without a result:", "", *failed)
    if record["claims"]:
        yield from ("", f"What papers say, by {words.unit(main)}:", "")
        yield from _table(CLAIMS_HEADER, claims(record))
    yield from ("", words.method(record), "")
    yield f"Made by `{record['made']['command']}` on {record['made']['device']}."
    yield (
        f"One cell again: `{again(record['rows'][0], record['seeds'][0])}`; a random "
        f"three compared: `{record['made']['command']} CHECK=3`."
    )


def again(row: Record, seed: int) -> str:
    """The command that makes a cell again, with the settings that it has."""
    return f"{row['command']} SEEDS={seed}"


def header(record: Record) -> list[str]:
    """Names of the columns of the main table."""
    main = record["metrics"][0]
    heads = ["", words.unit(main), f"less {record['baseline']}", "p (Holm)"]
    heads += [words.unit(metric) for metric in record["metrics"][1:]]
    if record["protocol"] == "paper":
        best = f"best evaluation, {words.unit(record['best_metric'])}"
        heads += [best, f"best less {record['baseline']}"]
    else:
        heads.append("best checkpoint")
    heads += ["teacher queries"] if _asked(record) else []
    return heads + (["published"] if _published(record) else [])


def body(record: Record) -> Iterator[list[str]]:
    """The rows of the main table."""
    main, *others = record["metrics"]
    by = record["best_metric"]
    for row in record["rows"]:
        difference = row["differences"].get(main["name"])
        cells = [
            row["name"],
            words.interval(row["scores"].get(main["name"]), main),
            words.interval(difference, main, signed=True),
            words.p_value(difference),
            *(words.interval(row["scores"].get(m["name"]), m) for m in others),
        ]
        if record["protocol"] == "paper":
            cells.append(words.interval(row["best"], by))
            cells.append(words.interval(row["best_difference"], by, signed=True))
        else:
            cells.append(words.value(row["best_checkpoint"], by))
        cells += [words.queries(row)] if _asked(record) else []
        yield cells + ([row["published"] or "–"] if _published(record) else [])


def differences_header(record: Record) -> list[str]:
    """Names of the columns of `differences`."""
    return ["", *(words.unit(metric) for metric in record["metrics"][1:])]


def differences(record: Record) -> Iterator[list[str]]:
    """The differences to the baseline by the other metrics, each with its p."""
    _, *others = record["metrics"]
    if not others:
        return
    for row in record["rows"]:
        if row["name"] == record["baseline"]:
            continue
        found = [(row["differences"].get(m["name"]), m) for m in others]
        yield [
            row["name"],
            *(
                f"{words.interval(entry, m, signed=True)} ({words.p_value(entry)})"
                for entry, m in found
            ),
        ]


def selected_header(record: Record) -> list[str]:
    """Names of the columns of `selected`."""
    metric = words.unit(record["tuning"]["metric"])
    return ["", "selected", f"{metric}, mean when tuned", "trials", "diverged"]


def selected(record: Record) -> Iterator[list[str]]:
    """The settings that each row runs with; nothing where there was no tuning."""
    found = record["tuning"]
    for row in found["rows"] if found else ():
        lost = sum(trial["mean"] is None for trial in row["trials"])
        yield [
            row["name"],
            words.setting(row["selected"]),
            words.value(row["mean"], found["metric"]),
            f"{len(row['trials'])} of {row['there']}",
            str(lost),
        ]


CLAIMS_HEADER = ("claim", "source", "difference", "p (Holm)", "here")


def claims(record: Record) -> Iterator[list[str]]:
    """The rows of the table of claims."""
    main = record["metrics"][0]
    for claim in record["claims"]:
        yield [
            f"{claim['better']} above {claim['than']}",
            claim["source"],
            words.interval(claim if "mean" in claim else None, main, signed=True),
            words.p_value(claim),
            claim["verdict"],
        ]


def _asked(record: Record) -> bool:
    """Whether its runs have counted; those of before queries were counted have not."""
    return any(words.queries(row) != MISSING for row in record["rows"])


def _published(record: Record) -> bool:
    return any(row["published"] for row in record["rows"])


def _table(head, rows) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |"


def comma_separated(record: Record) -> str:
    """Every run a line: row, seed, key, the metrics, or why there are none."""
    names = [metric["name"] for metric in record["metrics"]]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", "seed", "key", *names, "best_checkpoint", "failed"])
    for row in record["rows"]:
        for seed in row["seeds"]:
            scores = seed.get("scores", {})
            best, failed = seed.get("best", {}).get("value", ""), seed.get("failed", "")
            values = [scores.get(name, "") for name in names]
            writer.writerow(
                [row["name"], seed["seed"], seed["key"], *values, best, failed]
            )
    return buffer.getvalue()
