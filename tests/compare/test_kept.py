"""What lies in `results/` is of one table, or kept aside."""

import json

import pytest

from kd.compare import command, kept, selected

TABLE = {
    "name": "tiny",
    "data": {"origin": "here"},
    "baseline": "labels",
    "seeds": [0, 1],
    "rows": [{"name": "labels", "experiment": {"num_steps": 6}}],
    "made": {"finished": "2026-01-01T00:00:00+00:00"},
}
SWEEP = {
    "name": "tiny",
    "grid": {"optimizer.learning_rate": ["1e-3", "3e-3"]},
    "seeds": [100],
    "trials": 2,
    "rows": [{"name": "labels", "key": "0123456789ab"}],
    "made": {"finished": "2026-01-01T00:00:00+00:00"},
}


@pytest.fixture
def put(tmp_path):
    """Writes a table's pages, or a sweep's, and returns what was said."""

    def write(record, endings=("json", "md"), what=command._what):
        said = []
        files = dict.fromkeys(endings, json.dumps(record))
        kept.write(tmp_path, "tiny", files, what=what, say=said.append)
        return said

    return write


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [0]},
        {"baseline": "KL"},
        {"protocol": "paper"},
        {"tuning": {"grid": {}, "seeds": [100], "trials": 2}},
        {"rows": [{"name": "labels", "experiment": {"num_steps": 7}}]},
    ],
)
def test_pages_of_another_version_are_kept_aside(put, tmp_path, change):
    assert not put(TABLE)
    finished = {"finished": "2026-01-02T00:00:00+00:00"}
    same = TABLE | {"made": finished, "protocol": "last", "tuning": None}
    assert not put(same) and not (tmp_path / "before").exists()
    assert json.loads((tmp_path / "tiny.json").read_text()) == same
    said = put(TABLE | change)
    aside = tmp_path / "before" / "2026-01-02T000000+0000"
    assert sorted(path.name for path in aside.iterdir()) == ["tiny.json", "tiny.md"]
    assert json.loads((aside / "tiny.md").read_text()) == same
    assert json.loads((tmp_path / "tiny.json").read_text()) == TABLE | change
    assert str(aside) in said[0]


@pytest.mark.parametrize(
    "change",
    [
        {"grid": {"optimizer.learning_rate": ["1e-3", "1e-2"]}},
        {"seeds": [100, 101]},
        {"trials": 3},
        {"rows": [{"name": "labels", "key": "ba9876543210"}]},
    ],
)
def test_settings_of_another_grid_are_kept_aside(put, tmp_path, change):
    def sweep(record):
        return put(record, ["tuned.json"], selected.what)

    assert not sweep(SWEEP) and not sweep(SWEEP)
    said = sweep(SWEEP | change)
    aside = tmp_path / "before" / "2026-01-01T000000+0000" / "tiny.tuned.json"
    assert json.loads(aside.read_text()) == SWEEP and str(aside.parent) in said[0]


def test_pages_that_go_leave_the_settings(put, tmp_path):
    put(TABLE)
    put(SWEEP, ["tuned.json"], selected.what)
    put(TABLE | {"seeds": [0]})
    assert json.loads((tmp_path / "tiny.tuned.json").read_text()) == SWEEP


def test_damaged_pages_are_kept_aside_too(put, tmp_path):
    (tmp_path / "tiny.json").write_text("{")
    put(TABLE)
    assert (tmp_path / "before" / "damaged" / "tiny.json").read_text() == "{"
