"""`make table` as a person types it."""

import json

import pytest

from kd.__main__ import main
from kd.compare.command import _command, _keep_another, _parser, _together

TABLE = ["table", "gtzan_divergences"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--row", "CE"], "no row 'CE'; the rows are labels, KL, reverse KL"),
        (["--seeds", "a"], "SEEDS=a: expected whole numbers between commas"),
        (["--seeds", "1,1"], "seeds must be at least one and all different"),
        (["--jobs", "0"], "JOBS must be at least 1, got 0"),
        (["--data-dir", "/no/such/folder"], "/no/such/folder is not a folder"),
        (["batchsize=3"], "did you mean batch_size?"),
        (["objective.kl.weight=3"], "no field 'kl' in objective"),
        (["--check", "2", "--source", "local"], "needs DATA_DIR"),
    ],
)
def test_a_line_for_what_is_wrong(capsys, tmp_path, arguments, message):
    runs = tmp_path / "runs"
    assert main([*TABLE, *arguments, "--runs", str(runs)]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told and told.count("\n") == 0
    assert not [*runs.glob("networks/*")]


@pytest.mark.parametrize(
    ("asked", "backend", "together", "said"),
    [
        ([], "cpu", False, ""),
        ([], "gpu", True, ""),
        (["--together"], "cpu", True, " TOGETHER=1"),
        (["--no-together"], "gpu", False, " TOGETHER=0"),
    ],
)
def test_seeds_train_together_where_it_pays(
    monkeypatch, asked, backend, together, said
):
    monkeypatch.setattr("kd.environment.backend", lambda: backend)
    given = _parser().parse_intermixed_args(["x", *asked, "--scale", "mini"])
    assert _together(given) == together
    assert _command(given) == f"make table NAME=x SCALE=mini{said}"


def test_pages_of_another_version_are_kept_aside(tmp_path):
    said = []
    before = {
        "name": "tiny",
        "data": {"origin": "here"},
        "baseline": "labels",
        "seeds": [0, 1],
        "rows": [{"name": "labels", "experiment": {"num_steps": 6}}],
        "made": {"finished": "2026-01-01T00:00:00+00:00"},
    }
    for ending in ("json", "md"):
        (tmp_path / f"tiny.{ending}").write_text(json.dumps(before))
    _keep_another(tmp_path, before, said.append)
    assert not said and (tmp_path / "tiny.md").exists()
    _keep_another(tmp_path, before | {"seeds": [0]}, said.append)
    assert not (tmp_path / "tiny.md").exists()
    kept = tmp_path / "before" / "2026-01-01T000000+0000"
    assert sorted(path.name for path in kept.iterdir()) == ["tiny.json", "tiny.md"]
    assert str(kept) in said[0]


def test_damaged_pages_are_kept_aside_too(tmp_path):
    (tmp_path / "tiny.json").write_text("{")
    _keep_another(tmp_path, {"name": "tiny"}, [].append)
    assert (tmp_path / "before" / "damaged" / "tiny.json").read_text() == "{"
