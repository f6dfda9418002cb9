"""The page names what is in the code."""

import dataclasses
import pathlib
import re

from kd.experiment import Experiment

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how_it_meets.md").read_text()
CODE = "\n".join(path.read_text() for path in sorted((ROOT / "kd").rglob("*.py")))


def test_boxes_in_bold_are_fields_of_an_experiment():
    fields = {field.name for field in dataclasses.fields(Experiment)}
    bold = set(re.findall(r"<b>(\w+)</b>", PAGE))
    assert {"data", "teachers", "student", "view", "objective", "procedure"} <= bold
    assert bold <= fields


def test_what_is_named_exists():
    classes = set(re.findall(r"^class (\w+)", CODE, re.MULTILINE))
    drawn = PAGE.split("```mermaid")[1].split("```")[0]
    named = set(re.findall(r"\b[A-Z][a-z]+[A-Za-z]*\b", drawn))
    named -= {"Batch", "Losses", "LR"}
    assert named and named <= classes, named - classes
    for name in re.findall(r"`(\w+)`", PAGE):
        assert re.search(rf"\b{name}\b", CODE), name


def test_every_procedure_is_in_the_frame():
    of_procedures = re.findall(r"^class (\w+)\(Procedure\)", CODE, re.MULTILINE)
    frame = re.search(r'subgraph procedure\["(.*?)"\]', PAGE)
    assert frame is not None
    assert {*of_procedures} == {*re.findall(r"[A-Z]\w+", frame[1])}
