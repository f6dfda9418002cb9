"""`make table` as a person types it."""

import pytest

from kd.__main__ import main

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
