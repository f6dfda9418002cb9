"""Makes the notebooks from the .py files beside them, and runs them.

    python notebooks/build.py             writes every .ipynb, without outputs
    python notebooks/build.py --execute   and runs them in a kernel, into build/notebooks

A source is Python with a line `# %%` before a cell of code and `# %% [markdown]` before
one of text, which is then a comment.
"""

import json
import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).parent
EXECUTED = FOLDER.parent / "build" / "notebooks"


def main() -> int:
    """The command line; returns the exit status."""
    for source in sources():
        notebook = as_notebook(source.read_text(encoding="utf-8"))
        source.with_suffix(".ipynb").write_text(notebook, encoding="utf-8")
        if "--execute" in sys.argv[1:]:
            execute(source.with_suffix(".ipynb"))
    return 0


def sources() -> list[pathlib.Path]:
    """The sources of all notebooks."""
    return sorted(
        path for path in FOLDER.glob("*.py") if path != pathlib.Path(__file__)
    )


def as_notebook(source: str) -> str:
    """The JSON of a notebook; the same source gives the same bytes."""
    _, *parts = re.split(r"(?m)^# %%(.*)\n", source)
    cells = []
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        is_text = kind.strip() == "[markdown]"
        text = re.sub(r"(?m)^# ?", "", text) if is_text else text
        cells.append(
            {
                "cell_type": "markdown" if is_text else "code",
                "id": f"cell-{len(cells)}",
                "metadata": {},
                "source": text.strip().splitlines(keepends=True),
            }
            | ({} if is_text else {"execution_count": None, "outputs": []})
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def execute(path: pathlib.Path) -> None:
    """Runs a notebook in its own folder and keeps it with its outputs."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()
    EXECUTED.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, EXECUTED / path.name)
    print(f"executed: {EXECUTED / path.name}")


if __name__ == "__main__":
    sys.exit(main())
