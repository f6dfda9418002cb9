"""Numbers and verdicts of a table in words, the same on every page."""

from collections.abc import Mapping, Sequence
from typing import Any

from kd.report.quantities import MISSING

Record = Mapping[str, Any]


def unit(metric: Record) -> str:
    """What stands behind the metric's name in a heading."""
    return f"{metric['title']}, %" if metric.get("percent") else str(metric["title"])


def value(number: float | None, metric: Record, *, signed: bool = False) -> str:
    """A score, or with its sign a difference: per cent or points, or four digits."""
    if number is None:
        return MISSING
    scaled, digits = (100 * number, 2) if metric.get("percent") else (number, 4)
    text = f"{scaled:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "−")


def interval(entry: Record | None, metric: Record, *, signed: bool = False) -> str:
    """`80.12 [79.50, 80.74]`; without brackets where a single seed gives none."""
    if not entry:
        return MISSING
    mean = value(entry["mean"], metric, signed=signed)
    if entry["low"] is None:
        return mean
    low, high = (value(entry[end], metric, signed=signed) for end in ("low", "high"))
    # In a narrow column the interval goes below the mean as a whole.
    return f"{mean} [{low},\N{NO-BREAK SPACE}{high}]"


def queries(row: Record) -> str:
    """How often a training example is put to a teacher in a run of a row.

    On average, as the last batches of a run may be of other sizes with another seed.
    """
    counts = [seed.get("teacher_queries") for seed in row["seeds"]]
    known = [number for number in counts if number is not None]
    return f"{round(sum(known) / len(known)):,}" if known else MISSING


def p_value(entry: Record | None) -> str:
    """After Holm's correction."""
    p = (entry or {}).get("corrected")
    if p is None:
        return MISSING
    return f"{p:.3f}" if p >= 0.001 else "<\N{NO-BREAK SPACE}0.001"


def gap(record: Record) -> str:
    """The table's first line: what there is to gain, and whether it could be seen."""
    metric, found = record["metrics"][0], record["gap"]
    able = record["smallest_difference"][metric["name"]]
    points = " points" if metric.get("percent") else ""
    seen = f"{value(able, metric)}{points}"
    if found["gap"] is None:
        return (
            "There is no teacher to compare with, so nothing is told of distillation."
            if found["teacher"] is None
            else "The baseline has no finished run."
        )
    line = (
        f"Teacher {value(found['teacher'], metric)}, {record['baseline']} "
        f"{value(found['baseline'], metric)} ({unit(metric)}): a gap of "
        f"{value(found['gap'], metric, signed=True)}{points}."
    )
    if able is None:
        return (
            f"{line} With one seed, or one row, no difference can be told from chance."
        )
    if not found["told"]:
        return (
            f"{line} This table can tell nothing about distillation: the gap is below "
            f"the smallest difference that it could have seen, {seen}."
        )
    return f"{line} The smallest difference that it could have seen is {seen}."


def data(record: Record) -> str:
    """Where the examples come from, and which of them scores are of."""
    found = record["data"]
    return f"{found['origin']}; scored on {found.get('final', 'dev')}"


def seeds(record: Record) -> str:
    """`5 seeds (0 to 4)`, and what is missing of them."""
    found = record["seeds"]
    runs = [seed for row in record["rows"] for seed in row["seeds"]]
    failed = sum("failed" in seed for seed in runs)
    text = f"{len(found)} seeds ({', '.join(map(str, found))})"
    if len(found) < 2:
        text = "1 seed, so no interval and no test"
    return f"{text}; {failed} of {len(runs)} runs have no result" if failed else text


def tuning(record: Record) -> str:
    """Whether rows were tuned, with which budget, and how settings were selected."""
    found = record["tuning"]
    if found is None:
        return "Not tuned: the settings of each experiment."
    grid = "; ".join(f"{name} {', '.join(v)}" for name, v in found["grid"].items())
    return (
        f"Tuned with the same budget for every row, {budget(found)}: {grid}. Selected "
        f"by the mean {found['metric']['title']} of the last checkpoint on dev."
    )


def budget(found: Record) -> str:
    """`4 trials x 2 seeds (100, 101)`."""
    seeds = ", ".join(map(str, found["seeds"]))
    noun = "seed" if len(found["seeds"]) == 1 else "seeds"
    return f"{found['trials']} trials x {len(found['seeds'])} {noun} ({seeds})"


def setting(selected: Sequence[str] | None) -> str:
    """Of a row, as on the command line."""
    if selected is None:
        return "its experiment's, as every trial diverged"
    return " ".join(selected)


def method(record: Record) -> str:
    """How the numbers of a table came about."""
    if record["protocol"] == "last":
        return f"{_METHOD} {_BEST_CHECKPOINT}"
    return f"{_METHOD} {_BEST_EVALUATION}"


_METHOD = (
    "Brackets are 95 % intervals over seeds and examples together, as crossed random "
    "effects. Differences are paired: same seeds, same examples. p is of a t "
    "test with the same error, corrected over the rows by Holm's method. The smallest "
    "difference is what a row like most would have to differ by to be found in 80 % of "
    "such tables, as the only one. Scores are of the last checkpoint;"
)
_BEST_CHECKPOINT = (
    "the best one is selected on dev, and that is its score on dev, so optimistic."
)
_BEST_EVALUATION = (
    "the best evaluation, of one every 5 steps, is what the code of SinKD reports. It "
    "is selected on dev and measured there, so optimistic, and its intervals are over "
    "seeds alone."
)
