import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from kd.errors import UserError
from kd.report.files import read_run
from kd.report.page import render, write_page, write_page_or_tell


class Outline(HTMLParser):
    """Text and attributes of a page; fails where tags don't nest."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


@pytest.fixture
def run(run_directory):
    return read_run(run_directory)


def without_figures(run, **changes):
    return dataclasses.replace(run, rows=[], predictions={}, plan={}, **changes)


def test_page_nests_and_shows_every_section(page):
    text = " ".join(Outline(page).text)
    for heading in (
        "How it learned",
        "Terms of the loss",
        "How far to trust its confidence",
        "What the transport plan moves",
        "How the optimizer went",
    ):
        assert heading in text
    for number in ("81.08 ± 1.33 %", "−2.06 points", "4.39 M", "93.12 %", "0.0312"):
        assert number in text


def test_page_loads_nothing(page):
    outline = Outline(page)
    links = [
        value
        for name in ("src", "href", "xlink:href")
        for value in outline.values(name)
    ]
    assert links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert "@import" not in page
    assert all(address.startswith("#") for address in re.findall(r"url\((.*?)\)", page))
    addresses = set(re.findall(r"https?://[^\"'\s]+", page))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in " ".join(outline.values("content"))


def test_identifiers_are_unique_and_references_resolve(page):
    outline = Outline(page)
    identifiers = outline.values("id")
    references = re.findall(r"url\(#(.*?)\)", page)
    references += [link[1:] for link in outline.values("xlink:href") if link[0] == "#"]
    assert len(identifiers) == len(set(identifiers))
    assert references
    assert set(references) <= set(identifiers)


def test_same_files_give_same_page(run_directory):
    path = write_page(run_directory)

    assert path == run_directory / "report.html"
    first = path.read_bytes()
    assert write_page(run_directory).read_bytes() == first
    left = {path.name for path in run_directory.iterdir()}
    assert not any(name.startswith(".report") for name in left)


def test_text_is_escaped(run):
    hostile = '<script>alert("x")</script> & co'
    summary = json.loads(json.dumps(run.summary))
    summary["name"] = summary["paper"] = summary["data"]["origin"] = hostile
    summary["versions"] = {hostile: hostile}
    rows = [
        {f"loss/{hostile} $x^2$" if name == "loss/kl" else name: value
         for name, value in row.items()}
        for row in run.rows
    ]  # fmt: skip
    config = {"experiment": {hostile: hostile}}
    changes = {"summary": summary, "rows": rows, "config": config}

    outline = Outline(render(dataclasses.replace(run, plan={}, **changes)))

    assert not [tag for tag, _, _ in outline.attributes if tag == "script"]
    assert f"{hostile} $x^2$" in outline.text
    assert "".join(outline.text).count(hostile) > 5


def test_run_without_teacher_and_plan(run):
    summary = dict(run.summary, teacher=None, fidelity=None)
    predictions = {k: v for k, v in run.predictions.items() if k != "teacher_logits"}
    rows = [dict(row, agreement=None, kl=None) for row in run.rows]

    text = " ".join(
        Outline(
            render(
                dataclasses.replace(
                    run, summary=summary, rows=rows, predictions=predictions, plan={}
                )
            )
        ).text
    )

    assert "no teacher" in text
    assert "student, ECE" in text
    assert "teacher, ECE" not in text
    assert "agreement" not in text
    assert "transport plan" not in text


def test_only_what_is_required(run_directory):
    for name in ("predictions.npz", "plan.npz"):
        (run_directory / name).unlink()
    (run_directory / "metrics.jsonl").write_text("")
    (run_directory / "summary.json").write_text('{"new": [1], "student": {}}')

    text = " ".join(Outline(write_page(run_directory).read_text()).text)

    assert "How it learned" not in text
    assert "–" in text


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"scale": "paper", "data": {"source": "local", "origin": "o"}}, False),
        ({"scale": "paper", "data": {"source": "bundled", "origin": "o"}}, True),
        ({"scale": "mini", "data": {"source": "tfds", "origin": "o"}}, True),
    ],
)
def test_numbers_that_are_not_comparable_are_marked(run, changes, doubt):
    text = render(without_figures(run, summary={**run.summary, **changes}))

    assert ("Not comparable with published numbers" in text) == doubt


@pytest.mark.parametrize("name", ["config.json", "summary.json", "metrics.jsonl"])
def test_unfinished_run_is_refused_in_one_line(run_directory, name):
    (run_directory / name).unlink()

    with pytest.raises(UserError, match=f"has no {name}; expected"):
        write_page(run_directory)


def test_failure_leaves_the_old_page_and_nothing_else(run_directory, monkeypatch):
    (run_directory / "report.html").write_text("old")
    names = {path.name for path in run_directory.iterdir()}
    monkeypatch.setattr("kd.report.figures.sections", lambda run: [])

    def broken(self, target):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_page(run_directory)

    assert (run_directory / "report.html").read_text() == "old"
    assert {path.name for path in run_directory.iterdir()} == names


@pytest.mark.parametrize("error", [ValueError("no such backend\nat all"), KeyError()])
def test_a_page_that_fails_is_told_and_costs_nothing(run_directory, monkeypatch, error):
    said = []
    monkeypatch.setattr("kd.report.figures.sections", lambda run: iter([]))
    written = run_directory / "report.html"
    assert write_page_or_tell(run_directory, said.append) == written
    assert not said and written.is_file()

    def failing(run):
        raise error

    monkeypatch.setattr("kd.report.figures.sections", failing)
    assert write_page_or_tell(run_directory, said.append) is None
    (line,) = said
    assert line.startswith("no page was drawn: ") and "\n" not in line
    assert line.endswith(f"the numbers are in {run_directory / 'summary.json'}")


@pytest.mark.parametrize("name", ["predictions.npz", "plan.npz"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty", "one array"])
def test_damaged_arrays_are_one_line(run_directory, name, damage):
    path = run_directory / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    changed = {"cut": content[:-100], "flipped": content, "text": b"{}", "empty": b""}
    if damage in changed:
        path.write_bytes(changed[damage])
    else:
        with open(path, "wb") as file:
            np.save(file, np.arange(3))
    with pytest.raises(UserError, match=f"{name} is damaged: ") as refused:
        read_run(run_directory)
    assert "\n" not in str(refused.value)
    path.unlink()
    read_run(run_directory)


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff{}", b""])
def test_damaged_json_is_one_line(run_directory, name, content):
    (run_directory / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is damaged: .*; choose another"):
        read_run(run_directory)
