"""The main job once, from experiment to page: what `make test` has of whole runs.

`make test-slow` has the others.
"""

import json

from kd import run


def test_a_student_is_distilled(tiny, place):
    summary = run.run(tiny, "tiny", place.workspace)
    directory = place.workspace.runs / "tiny" / "0"
    rows = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    assert losses[-1] < losses[0]
    assert summary["teacher_queries"] == summary["data"]["num_train"]
    for name in ("summary.json", "metrics.jsonl", "model/model.safetensors"):
        assert (directory / name).stat().st_size
    assert "</svg>" in (directory / "report.html").read_text()
