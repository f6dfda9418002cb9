"""Reads examples from tab-separated files and from JSON lines.

In tab-separated files, those of the GLUE download, quotes are text.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd.data import files
from kd.data.files import quoted
from kd.errors import UserError
from kd.evaluate.target import Target

Example = tuple[list[str], int | float]
"""The texts of an example, and its target."""


def parse(
    path: Path,
    content: bytes,
    *,
    header: Sequence[str] = (),
    columns: Sequence[str],
    label_column: str,
    target: Target,
) -> list[Example]:
    """Texts and target of every row, in order.

    Blank lines at the end are left out.

    Args:
        path: where the content comes from, for messages; .jsonl, plain or compressed,
            is one JSON object a line, all else is tab-separated.
        content: UTF-8; lines end with LF or CR LF.
        header: names of all columns where the file does not begin with them.
        columns: that hold the texts of an example: "a", "a+b" for both joined by a
            colon, "a.b" for the key b of the object at a.
        label_column: that holds its target.
        target: what reads it.

    Raises:
        UserError: no UTF-8, no rows, no such columns, or a row that does not fit.
    """
    lines = files.lines_of(path, content)
    while lines and not lines[-1].strip():
        lines.pop()
    read = _json_rows if ".jsonl" in path.suffixes else _tsv_rows
    wanted = [part for column in columns for part in column.split("+")]
    examples = []
    for number, row in read(path, lines, header, [*wanted, label_column]):
        where = f"{path}:{number}"
        parts = dict(zip(wanted, row, strict=False))
        texts = [": ".join(parts[p] for p in c.split("+")) for c in columns]
        for part, text in parts.items():
            if not text:
                raise UserError(f"{where}: empty {part}")
        try:
            examples.append((texts, target.parse(row[-1])))
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
    return examples


def _tsv_rows(path: Path, lines: list[str], header: Sequence[str], wanted: list[str]):
    first = 1 if header else 2
    if len(lines) < first:
        expected = "one per line" if header else "a header and then one per line"
        raise UserError(f"{path}: no examples; expected {expected}")
    header = header or lines[0].split("\t")
    if not set(wanted) <= set(header):
        raise UserError(
            f"{path}:1: the header has the columns {quoted(header)};"
            f" expected {quoted(wanted)}"
        )
    places = [header.index(column) for column in wanted]
    for number, line in enumerate(lines[first - 1 :], start=first):
        fields = line.split("\t")
        if len(fields) != len(header):
            raise UserError(
                f"{path}:{number}: {len(fields)} fields between tabs;"
                f" expected {len(header)}, {quoted(header)}"
            )
        yield number, [fields[place].strip() for place in places]


def _json_rows(path: Path, lines: list[str], header: Sequence[str], wanted: list[str]):
    del header
    if not lines:
        raise UserError(f"{path}: no examples; expected a JSON object a line")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({error})") from error
        yield number, [_text(path, number, row, name) for name in wanted]


def _text(path: Path, number: int, row: Any, name: str) -> str:
    value = row
    for key in name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            there = quoted(value) if isinstance(value, Mapping) else "no object"
            raise UserError(f"{path}:{number}: no {name!r}; there is {there}")
        value = value[key]
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise UserError(f"{path}:{number}: {name} is no text and no number")
    return str(value).strip()
