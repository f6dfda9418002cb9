"""Writes docs/methods.md: a row for every paper that this project follows.

python -m docs.methods_page.page docs/methods.md
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Iterator

from docs.methods_page.papers import PAPERS, Paper

_ROOT = pathlib.Path(__file__).parents[2]

_HEAD = """\
# Methods

Made by `make docs` from docs/methods_page/, the experiments' docstrings and results/. A
paper's key is that of references.bib. Experiments are those that name it; what tables
say of its claims is in [results/](../results/README.md), with intervals.

"""


def page() -> str:
    """The whole page."""
    cited = _citations()
    verdicts = _verdicts()
    rows = [
        "| paper | changes | method here | experiments | tables | open |",
        "|---|---|---|---|---|---|",
    ]
    for paper in PAPERS:
        cells = (
            f"{paper.name} ({paper.key})",
            ", ".join(paper.changes),
            paper.what,
            ", ".join(f"`{name}`" for name in cited.get(paper.key, ())) or "–",
            "; ".join(verdicts.get(paper.key, ())) or "–",
            paper.open or "–",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return _HEAD + "\n".join(rows) + "\n"


def _citations() -> dict[str, list[str]]:
    """The experiments whose docstring names a paper, by its key."""
    cited: dict[str, list[str]] = {}
    for path in sorted((_ROOT / "experiments").glob("[a-z]*.py")):
        docstring = path.read_text().split('"""')[1]
        for paper in PAPERS:
            if paper.key in docstring:
                cited.setdefault(paper.key, []).append(path.stem)
    return cited


def _verdicts() -> dict[str, list[str]]:
    """What the committed tables say of a paper's claims, by its key."""
    found: dict[str, list[str]] = {}
    for path in sorted((_ROOT / "results").glob("*.json")):
        record = json.loads(path.read_text())
        for claim in record.get("claims", ()):
            told = (
                f"{claim['better']} above {claim['than']}: {claim['verdict']} "
                f"([{path.stem}](../results/{path.stem}.md))"
            )
            for key in _keys(claim["source"]):
                found.setdefault(key, []).append(told)
    return found


def _keys(source: str) -> Iterator[str]:
    for paper in PAPERS:
        if re.search(rf"\b{paper.key}\b", source):
            yield paper.key


def names(paper: Paper) -> list[str]:
    """What the sentence about a paper names in the code."""
    return re.findall(r"`([A-Za-z_.]+)`", paper.what)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=pathlib.Path)
    path = parser.parse_args().path
    path.write_text(page())
    print(f"written: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
