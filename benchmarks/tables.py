"""Writes the tables of benchmarks/README.md from the raw results.

python -m benchmarks.tables
"""

import json
import pathlib
import sys
from typing import Any

import numpy as np

from benchmarks import measure

README = pathlib.Path(__file__).parent / "README.md"
_BEGIN = "<!-- begin: written by python -m benchmarks.tables -->\n"
_END = "<!-- end -->\n"


def main() -> int:
    """Writes the tables anew; returns the exit status."""
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def with_tables(readme: str) -> str:
    """The text with what is between the two marks made from the results."""
    before, _, rest = readme.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    results = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(measure.RESULTS.glob("*.json"), reverse=True)
    ]
    return before + _BEGIN + "\n".join(map(section, results)) + _END + after


def section(result: dict[str, Any]) -> str:
    """Heading, circumstances, and the table that fits what was found."""
    table = next(make for kind, make in _TABLES.items() if kind in result)
    return "\n".join(
        [f"### {result['title']}", "", _circumstances(result), "", *table(result), ""]
    )


def _races(result: dict[str, Any]) -> list[str]:
    """A row for every contender."""
    unit = result["setting"].get("unit", "examples")
    weighed = any("peak_bytes" in race for race in result["races"])
    lines = [
        f"| blocks | contender | {unit}/s, median (quartiles) "
        "| the first is faster by (quartiles) |" + " peak, MiB |" * weighed,
        "| --- | --- | ---: | ---: |" + " ---: |" * weighed,
    ]
    for race in result["races"]:
        examples = np.array(race["examples"])
        first = np.array(next(iter(race["seconds"].values())))
        for i, (name, seconds) in enumerate(race["seconds"].items()):
            rate = _quartiles(examples / np.array(seconds), ",.0f")
            factor = _quartiles(np.array(seconds) / first, ".2f") if i else ""
            blocks = "" if i else f"{race['title']}: {len(examples)}"
            peak = f" {_peak(race, name)} |" if weighed else ""
            lines.append(f"| {blocks} | {name} | {rate} | {factor} |{peak}")
    if "peak_bytes" in result:
        at = result["setting"]["memory_at"]
        peaks = ", ".join(
            f"{name} {size / 2**20:,.1f}" for name, size in result["peak_bytes"].items()
        )
        lines += [
            "",
            f"Peak memory of one evaluation at B={at['batch_size']}, "
            f"V={at['num_classes']}, in MiB: {peaks}.",
        ]
    return lines


def _peak(race: dict[str, Any], name: str) -> str:
    """In MiB, of what was weighed."""
    return f"{race['peak_bytes'][name] / 2**20:,.0f}" if "peak_bytes" in race else ""


_ERRORS = (1e-3, 1e-5, 1e-6)


def _curves(result: dict[str, Any]) -> list[str]:
    """Milliseconds that every solver needs to come so near."""
    lines = [
        "| problem | solver | " + " | ".join(f"ms to {e:.0e}" for e in _ERRORS) + " |",
        "| --- | --- |" + " ---: |" * len(_ERRORS),
    ]
    for curve in result["curves"]:
        problem = f"B={curve['batch_size']}, V={curve['num_classes']}"
        for solver in dict.fromkeys(point["solver"] for point in curve["points"]):
            cells = []
            for largest in _ERRORS:
                times = [
                    1e3 * np.array(point["seconds"])
                    for point in curve["points"]
                    if point["solver"] == solver and point["error"] <= largest
                ]
                best = min(times, key=np.median, default=None)
                cells.append("never" if best is None else _quartiles(best, ".2f"))
            lines.append(f"| {problem} | {solver} | {' | '.join(cells)} |")
            problem = ""
    return lines


def _rows(result: dict[str, Any]) -> list[str]:
    """A line for every problem, a column for every number of devices."""
    by_problem: dict[str, dict[int, int]] = {}
    for row in result["rows"]:
        problem = f"B={row['batch_size']:,}, V={row['num_classes']:,}"
        sent = by_problem.setdefault(problem, {})
        sent[row["num_devices"]] = row["bytes_sent_per_device"]
    devices = list(next(iter(by_problem.values())))
    return [
        "| KiB | " + " | ".join(f"{number} devices" for number in devices) + " |",
        "| --- |" + " ---: |" * len(devices),
        *(
            f"| {problem} | "
            + " | ".join(f"{sent[number] / 1024:,.0f}" for number in devices)
            + " |"
            for problem, sent in by_problem.items()
        ),
        *_steps(result),
    ]


def _steps(result: dict[str, Any]) -> list[str]:
    """Of whole training steps: a line for every student and number of classes."""
    rows = result.get("steps", [])
    if not rows:
        return []
    devices = sorted({row["num_devices"] for row in rows})
    last = max(row["num_devices"] for row in rows if row["counted"])
    names = {
        "bytes_of_step": f"1 layer of width 64, counted up to {last} devices",
        "bytes_of_paper_step": "6 layers of width 768, by the formula",
    }
    lines = [
        "",
        "A whole step of `sst2_sinkd`, 32 rows of 64 tokens a device:",
        "",
        "| MiB | " + " | ".join(f"{number:,} devices" for number in devices) + " |",
        "| --- |" + " ---: |" * len(devices),
    ]
    for name, student in names.items():
        for classes in sorted({row["num_classes"] for row in rows}):
            sent = [row[name] for row in rows if row["num_classes"] == classes]
            cells = " | ".join(f"{number / 2**20:,.1f}" for number in sent)
            lines.append(f"| {student}, V={classes} | {cells} |")
    return lines


def _overheads(result: dict[str, Any]) -> list[str]:
    """A line for every loss, a column for every batch size."""
    races = result["overheads"]
    lines = [
        "| added to the cross-entropy | "
        + " | ".join(f"B={race['batch_size']}" for race in races)
        + " |",
        "| --- |" + " ---: |" * len(races),
    ]
    milliseconds = [
        _quartiles(
            1e3
            * np.concatenate([base for base, _ in map(_two, race["pairs"].values())])
            / race["steps_in_block"],
            ".1f",
        )
        for race in races
    ]
    lines.append(f"| nothing, ms a step | {' | '.join(milliseconds)} |")
    for name in races[0]["pairs"]:
        cells = []
        for race in races:
            base, loss = _two(race["pairs"][name])
            cells.append(_quartiles(100 * (loss / base - 1), "+.0f") + " %")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def _memory(result: dict[str, Any]) -> list[str]:
    """A line for every experiment."""
    lines = [
        "| experiment | told, MiB | measured, MiB (least to most) | told / measured "
        "| largest |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for row in result["memory"]:
        measured = np.array(row["measured"]) / 2**20
        told, median = row["told"] / 2**20, np.median(measured)
        name = " ".join([f"`{row['experiment']}`", *row["fields"]])
        largest = max(row["parts"], key=row["parts"].get)
        lines.append(
            f"| {name} | {told:,.1f} | {median:,.1f} ({measured.min():,.1f} to "
            f"{measured.max():,.1f}) | {told / median:.2f} | {largest} |"
        )
    return lines


def _two(seconds: dict[str, list[float]]) -> tuple[np.ndarray, np.ndarray]:
    base, loss = seconds.values()
    return np.array(base), np.array(loss)


_TABLES = {
    "races": _races,
    "curves": _curves,
    "rows": _rows,
    "overheads": _overheads,
    "memory": _memory,
}


def _circumstances(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    libraries = ("jax", "torch", "ott-jax", "POT", "geomloss")
    shown = [f"{name} {versions[name]}" for name in libraries if name in versions]
    load = result["load_average"]
    said = [f"Aim: {result['aim']:g} times."] if "aim" in result else []
    said.append(
        f"{machine['cpu']}, {machine['num_cores']} cores; {', '.join(shown)}; "
        + (f"{result['setting']['data']}; " if "data" in result["setting"] else "")
        + f"load average {load['before'][0]:.1f} before, {load['after'][0]:.1f} after; "
        f"{result['started'][:10]}."
    )
    if "largest_differences" in result:
        apart = max(_numbers(result["largest_differences"]))
        said.append(f"Largest relative difference between the contenders: {apart:.0e}.")
    return " ".join(said)


def _quartiles(values: np.ndarray, form: str) -> str:
    low, median, high = (f"{x:{form}}" for x in np.percentile(values, [25, 50, 75]))
    return f"{median} ({low} to {high})"


def _numbers(tree: Any) -> list[float]:
    if isinstance(tree, dict):
        return [number for value in tree.values() for number in _numbers(value)]
    return [tree]


if __name__ == "__main__":
    sys.exit(main())
