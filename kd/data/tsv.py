"""Reads the tab-separated files of the GLUE download; quotes in them are text."""

from collections.abc import Sequence
from pathlib import Path

from kd.data import files
from kd.data.files import quoted
from kd.errors import UserError


def parse(
    path: Path,
    content: bytes,
    *,
    header: Sequence[str] = (),
    columns: Sequence[str],
    label_column: str,
    labels: Sequence[str],
) -> list[tuple[list[str], int]]:
    """Texts and class of every row, in order.

    Args:
        path: where the content comes from, for messages.
        content: UTF-8; lines end with LF or CR LF.
        header: names of all columns where the file does not begin with them.
        columns: that hold the texts of an example.
        label_column: that holds its class, as a name or a number.
        labels: names of the classes.

    Raises:
        UserError: no UTF-8, no rows, no such columns, or a row that does not fit.
    """
    lines = files.lines_of(path, content)
    first = 1 if header else 2
    if len(lines) < first:
        expected = "one per line" if header else "a header and then one per line"
        raise UserError(f"{path}: no examples; expected {expected}")
    header = header or lines[0].split("\t")
    wanted = (*columns, label_column)
    if not set(wanted) <= set(header):
        raise UserError(
            f"{path}:1: the header has the columns {quoted(header)};"
            f" expected {quoted(wanted)}"
        )
    places = [header.index(column) for column in wanted]
    classes = {label: i for i, label in enumerate(labels)}
    classes |= {str(i): i for i in range(len(labels))}

    def example(number: int, line: str) -> tuple[list[str], int]:
        fields = line.split("\t")
        if len(fields) != len(header):
            raise UserError(
                f"{path}:{number}: {len(fields)} fields between tabs;"
                f" expected {len(header)}, {quoted(header)}"
            )
        *texts, label = (fields[place].strip() for place in places)
        if label not in classes:
            raise UserError(
                f"{path}:{number}: label {quoted([label])}; expected"
                f" 0 to {len(labels) - 1} or {quoted(labels)}"
            )
        if not all(texts):
            raise UserError(f"{path}:{number}: empty {columns[texts.index('')]}")
        return texts, classes[label]

    return [example(*row) for row in enumerate(lines[first - 1 :], start=first)]
