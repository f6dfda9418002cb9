"""`python -m kd.retrieval`: the networks of a run by name."""

import dataclasses
import textwrap

import pytest
from test_room import experiment_on, write_table

from kd import catalog, run
from kd.errors import UserError
from kd.evaluate.classes import Classes
from kd.experiment import Network
from kd.features import PKT
from kd.objective import CrossEntropy
from kd.retrieval.__main__ import main

pytestmark = pytest.mark.slow


@pytest.fixture
def points(tmp_path, monkeypatch):
    """An experiment by the name "points", made from a chain of others."""
    write_table(tmp_path / "data", lambda x, y: "high" if y > x else "low")
    recipe = experiment_on(
        tmp_path / "data", Classes(("low", "high")), 1.0 * CrossEntropy()
    )
    auxiliary = dataclasses.replace(
        recipe,
        start=Network(recipe=recipe, checkpoint="best"),
        objective=CrossEntropy() + PKT(kernel="both"),
        teachers=(Network(recipe=recipe),),
    )
    experiment = dataclasses.replace(
        recipe, teachers=(Network(recipe=auxiliary),), objective=CrossEntropy() + PKT()
    )
    monkeypatch.setattr(catalog, "load", lambda name, scale: experiment)
    return experiment


def test_every_network_has_its_line(points, place, capsys):
    runs = place.workspace.runs
    arguments = ["points", f"--runs={runs}", "--scale=mini"]
    with pytest.raises(UserError, match="there is no finished run"):
        main(arguments)
    run.run(points, "points", place.workspace)
    capsys.readouterr()
    assert main([*arguments, "--queries=10"]) == 0
    heading, metrics, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["mAP", "top", "100"]
    assert metrics.split() == ["cosine", "euclidean"] * 2
    names = [line[:24].strip() for line in lines]
    assert names == ["student", "teacher", "teacher's teacher", "teacher's start"]
    for line in lines:
        scores = [float(text.strip("%")) for text in line[24:].split()]
        assert len(scores) == 4
        assert all(40 < score <= 100 for score in scores), textwrap.shorten(line, 80)
