"""A folder of results: files are whole, and what was there of another is kept."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from kd.atomic import atomic_write


def write(
    folder: pathlib.Path,
    name: str,
    files: Mapping[str, str],
    *,
    what: Callable[[Any], Any],
    say: Callable[[str], Any],
) -> None:
    """Writes files that belong together; those of another record are moved aside first.

    Args:
        folder: is made if need be.
        name: of all of them, before the ending.
        files: contents by endings, such as "tuned.json", the record as JSON first. It
            says in `record["made"]["finished"]` when it was made.
        what: of a record, what it is of, whatever came out; where that of the record
            that is there differs, it is kept.
        say: shows a line to the person who waits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = next(iter(files))
    _keep_another(folder, name, [*files], what, json.loads(files[first]), say)
    for ending, content in files.items():
        with atomic_write(folder / f"{name}.{ending}") as file:
            file.write(content)


def _keep_another(
    folder: pathlib.Path,
    name: str,
    endings: list[str],
    what: Callable[[Any], Any],
    record: Any,
    say: Callable[[str], Any],
) -> None:
    there = folder / f"{name}.{endings[0]}"
    if not there.exists():
        return
    try:
        before = json.loads(there.read_text())
        finished = before["made"]["finished"]
        same = what(before) == what(record)
    except (ValueError, KeyError, TypeError):
        finished, same = "damaged", False
    if same:
        return
    aside = folder / "before" / finished.replace(":", "")
    aside.mkdir(parents=True, exist_ok=True)
    # Not all that begins with the name: a table's settings are no page of it.
    for path in (folder / f"{name}.{ending}" for ending in endings):
        if path.exists():
            path.replace(aside / path.name)
    say(f"{there} was of another before; kept in {aside}")
