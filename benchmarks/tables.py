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
    """Heading, circumstances, and a table with a row for every contender."""
    if "overheads" in result:
        return "\n".join(
            [
                f"### {result['title']}",
                "",
                _machine(result),
                "",
                *_overheads(result),
                "",
            ]
        )
    lines = [
        f"### {result['title']}",
        "",
        f"Aim: {result['aim']:g} times. {_circumstances(result)}",
        "",
        "| blocks | contender | examples/s, median (quartiles) "
        "| the first is faster by (quartiles) |",
        "| --- | --- | ---: | ---: |",
    ]
    for race in result["races"]:
        examples = np.array(race["examples"])
        first = np.array(next(iter(race["seconds"].values())))
        for i, (name, seconds) in enumerate(race["seconds"].items()):
            rate = _quartiles(examples / np.array(seconds), ",.0f")
            factor = _quartiles(np.array(seconds) / first, ".2f") if i else ""
            blocks = "" if i else f"{race['title']}: {len(examples)}"
            lines.append(f"| {blocks} | {name} | {rate} | {factor} |")
    return "\n".join([*lines, ""])


def _overheads(result: dict[str, Any]) -> list[str]:
    """A line for every loss, a column for every batch size; the first is the base."""
    races = result["overheads"]
    base, *losses = races[0]["seconds"]
    lines = [
        "| added to the cross-entropy | "
        + " | ".join(f"B={race['batch_size']}" for race in races)
        + " |",
        "| --- |" + " ---: |" * len(races),
    ]
    milliseconds = [
        _quartiles(
            1e3 * np.array(race["seconds"][base]) / race["steps_in_block"], ".1f"
        )
        for race in races
    ]
    lines.append(f"| nothing, ms a step | {' | '.join(milliseconds)} |")
    for name in losses:
        cells = []
        for race in races:
            seconds = race["seconds"]
            more = np.array(seconds[name]) / np.array(seconds[base]) - 1
            cells.append(_quartiles(100 * more, "+.0f") + " %")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def _machine(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    load = result["load_average"]
    return (
        f"{machine['cpu']}, {machine['num_cores']} cores; jax {versions['jax']}; "
        f"{result['setting']['data']}; load average {load['before'][0]:.1f} before, "
        f"{load['after'][0]:.1f} after; {result['started'][:10]}. "
        "Median (quartiles) of the blocks."
    )


def _circumstances(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    shown = [f"{n} {versions[n]}" for n in ("jax", "torch") if n in versions]
    load = result["load_average"]
    apart = max(_numbers(result["largest_differences"]))
    return (
        f"{machine['cpu']}, {machine['num_cores']} cores; {', '.join(shown)}; "
        f"{result['setting']['data']}; load average {load['before'][0]:.1f} before, "
        f"{load['after'][0]:.1f} after; {result['started'][:10]}. "
        f"Largest relative difference between the contenders: {apart:.0e}."
    )


def _quartiles(values: np.ndarray, form: str) -> str:
    low, median, high = (f"{x:{form}}" for x in np.percentile(values, [25, 50, 75]))
    return f"{median} ({low} to {high})"


def _numbers(tree: Any) -> list[float]:
    if isinstance(tree, dict):
        return [number for value in tree.values() for number in _numbers(value)]
    return [tree]


if __name__ == "__main__":
    sys.exit(main())
