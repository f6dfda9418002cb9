import pathlib
import re

from docs.methods_page import page
from docs.methods_page.papers import PAPERS

ROOT = pathlib.Path(__file__).parents[2]


def test_the_page_is_what_the_code_says():
    assert (ROOT / "docs/methods.md").read_text() == page.page(), "run make docs"


def test_every_paper_is_in_the_bibliography_once():
    keys = re.findall(r"^@\w+\{(\w+),", (ROOT / "references.bib").read_text(), re.M)
    papers = [paper.key for paper in PAPERS]
    assert len(set(papers)) == len(papers)
    assert set(papers) <= set(keys)


def test_what_is_named_exists():
    code = "\n".join(path.read_text() for path in (ROOT / "kd").rglob("*.py"))
    makefile = (ROOT / "Makefile").read_text()
    for paper in PAPERS:
        for name in page.names(paper):
            if name.startswith("kd."):
                assert (ROOT / name.replace(".", "/")).is_dir(), name
            else:
                assert re.search(rf"(class|def) {name}\b", code) or name in makefile, (
                    f"{paper.key} names {name}"
                )
