"""`make table` as a person types it."""

import pytest

from kd.__main__ import main
from kd.compare import command

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
    given = command._parser().parse_intermixed_args(["x", *asked, "--scale", "mini"])
    assert command.together(given) == together
    assert command.command("table", given) == f"make table NAME=x SCALE=mini{said}"
